from pathlib import Path

import pytest

from services.outage import Outage
from services.redis_settings import RedisSettings, is_redis_url


def test_a_url_says_where_the_redis_is() -> None:
    assert RedisSettings.from_url("redis://cache.local") == RedisSettings(host="cache.local")
    settings = RedisSettings.from_url(
        "rediss://head%20race@10.0.0.8:6380/3", password="secret", ca_path=Path("ca.pem")
    )
    assert settings == RedisSettings(
        host="10.0.0.8",
        port=6380,
        database=3,
        username="head race",
        password="secret",
        tls=True,
        ca_path=Path("ca.pem"),
    )
    assert "secret" not in repr(settings)
    assert is_redis_url("rediss://h")
    assert not is_redis_url("redis")
    assert not is_redis_url("http://h")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h", "is at redis://"),
        ("redis://", "is at redis://"),
        ("redis://h:x", "no URL"),
        ("redis://h:70000", "no URL"),
        ("redis://:hidden@h", "HEADRACE_REDIS_PASSWORD"),
        ("redis://h/zero", "number of a database"),
        ("redis://h/1?ssl_cert_reqs=none", "number of a database"),
    ],
)
def test_a_url_that_is_none_of_a_redis_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        RedisSettings.from_url(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": ""},
        {"port": 0},
        {"database": -1},
        {"prefix": ""},
        {"ca_path": Path("ca.pem")},
        {"max_connections": 0},
        {"connect_timeout_s": 0.0},
        {"rest_s": -1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"no place|prefix|authority|must be"):
        RedisSettings(**fields)  # type: ignore[arg-type]


def test_after_a_failure_one_at_a_time_may_ask() -> None:
    outage = Outage(rest_s=1.0)
    assert outage.may_ask(0.0)
    assert not outage.answered()
    assert outage.failed(10.0)
    assert not outage.may_ask(10.9)
    assert outage.may_ask(11.0)
    assert not outage.may_ask(11.5)
    assert not outage.failed(11.6)
    assert not outage.may_ask(12.5)
    assert outage.may_ask(12.6)
    assert outage.answered()
    assert outage.may_ask(12.6)
