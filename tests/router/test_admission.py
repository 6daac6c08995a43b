import pytest

from router.admission import Admission
from shards.errors import Overloaded


def test_what_exceeds_the_limit_is_refused_with_a_time_to_come_back() -> None:
    admission = Admission(2, retry_after_s=0.25)
    with admission.admitted():
        with admission.admitted():
            with pytest.raises(Overloaded, match="2 requests are in flight") as caught, admission.admitted():
                pytest.fail("a third request was admitted")
            assert caught.value.retry_after_s == 0.25
        with admission.admitted():
            assert admission.in_flight == 2


def test_a_failing_request_gives_its_place_back() -> None:
    admission = Admission(1)
    with pytest.raises(RuntimeError), admission.admitted():
        raise RuntimeError
    with admission.admitted():
        assert admission.in_flight == 1


def test_a_router_is_busy_when_half_of_its_places_are_taken() -> None:
    admission = Admission(2)
    assert not admission.busy
    with admission.admitted():
        assert admission.busy
