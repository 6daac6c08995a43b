from pathlib import Path

import pytest

from services.consul_settings import ConsulSettings, ConsulTls


@pytest.mark.parametrize(
    "address", ["", "consul", ":8500", "consul:", "consul:x", "consul:0", "consul:65536"]
)
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        ConsulSettings(address=address)


@pytest.mark.parametrize("prefix", ["", "/", "/headrace", "headrace/"])
def test_a_prefix_has_no_slashes_around_it(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        ConsulSettings(prefix=prefix)


def test_waits_are_positive() -> None:
    for times in ({"timeout_s": 0.0}, {"wait_s": 0.0}, {"wait_s": 601.0}):
        with pytest.raises(ValueError, match="wait_s"):
            ConsulSettings(**times)  # type: ignore[arg-type]


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(ConsulSettings(token="secret"))


def test_a_certificate_comes_with_its_key() -> None:
    with pytest.raises(ValueError, match="together"):
        ConsulTls(cert_path=Path("cert.pem"))


def test_keys_lie_below_the_prefix() -> None:
    assert ConsulSettings(prefix="search/prod").key("placement") == "search/prod/placement"
