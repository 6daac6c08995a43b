"""Quotas of callers: counted by themselves, and through a real server."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.access import AccessRules, Caller, Quota, Role, digest
from services.followed_rules import FollowedRules
from services.quotas import Quotas
from shards.errors import FieldViolation, InvalidInput, Overloaded
from tests.services.callers import RULES, showing
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def caller(name: str = "web", **quota: Any) -> Caller:
    return Caller(
        name=name,
        token_sha256=digest(name),
        roles=(Role.OPERATOR,),
        quota=Quota(**quota),
    )


def answered(quotas: Quotas, who: Caller, calls: int) -> int:
    """Return how many of so many calls, one after the other, were let in."""
    let_in = 0
    for _ in range(calls):
        try:
            with quotas.taking(who):
                let_in += 1
        except Overloaded:
            pass
    return let_in


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    clock = Clock()
    quotas, web = Quotas(clock), caller(requests_per_s=10, burst=25)
    assert answered(quotas, web, 40) == 25
    with pytest.raises(Overloaded, match="'web' may call 10 times a second") as caught, quotas.taking(web):
        pass
    assert caught.value.retry_after_s == pytest.approx(0.1)
    clock.now_s += 1.0
    assert answered(quotas, web, 40) == 10
    clock.now_s += 3600.0
    assert answered(quotas, web, 40) == 25, "a pause saves up no more than a burst"
    assert answered(quotas, caller("app", requests_per_s=0.5), 3) == 1, "others have quotas of their own"


def test_calls_in_flight_are_counted_until_they_end() -> None:
    quotas, web = Quotas(Clock()), caller(in_flight=2)
    with ExitStack() as under_way:
        under_way.enter_context(quotas.taking(web))
        under_way.enter_context(quotas.taking(web))
        with pytest.raises(Overloaded, match="2 calls in flight"), quotas.taking(web):
            pass
    with pytest.raises(KeyError), quotas.taking(web):
        raise KeyError
    assert answered(quotas, web, 5) == 5


def test_a_quota_that_was_raised_holds_at_once() -> None:
    quotas = Quotas(Clock())
    assert answered(quotas, caller(requests_per_s=2), 9) == 2
    assert answered(quotas, caller(in_flight=1), 9) == 9


@pytest.mark.parametrize("wrong", [{"requests_per_s": -1.0}, {"in_flight": -1}, {"burst": 5}])
def test_quotas_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="requests_per_s"):
        caller(**wrong)


def test_a_real_server_refuses_what_is_too_much_and_says_when_to_come_back(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    rules = AccessRules(callers=(*RULES.callers, caller(requests_per_s=0.1, burst=2)))

    async def main() -> None:
        async with (
            in_process_shards(tmp_path / "state") as shards,
            running_controller(tmp_path, shards, access=lambda: rules) as controller,
        ):

            async def listed(token: str) -> grpc.StatusCode | None:
                call = controller.stub.ListShards(pb.ListShardsRequest(), timeout=10, metadata=showing(token))
                try:
                    await call
                except grpc.aio.AioRpcError as error:
                    status, retry = rpc_status.from_call(error), RetryInfo()
                    assert status is not None
                    assert any(detail.Unpack(retry) for detail in status.details)
                    assert 5 < retry.retry_delay.ToNanoseconds() / 1e9 <= 10
                    return error.code()
                return None

            assert [await listed("web") for _ in range(3)] == [None, None, grpc.StatusCode.RESOURCE_EXHAUSTED]
            assert await listed("operator-token") is None

    asyncio.run(main())


def test_rules_follow_their_file_and_broken_ones_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "access.json", Clock()
    path.write_text("first")

    def read() -> AccessRules:
        name = path.read_text()
        if name == "broken":
            raise InvalidInput(FieldViolation(str(path), "has no access rules"))
        return AccessRules(callers=(caller(name),))

    rules = FollowedRules(read, (path,), clock=clock)

    def seen(content: str, after_s: float) -> str:
        path.write_text(content)
        clock.now_s += after_s
        return rules().callers[0].name

    assert seen("second", 0.5) == "first", "nobody looks at every call"
    assert seen("second!", 0.6) == "second!"
    assert seen("broken", 2.0) == "second!"
    assert caplog.text.count("rules of access from before stay in force") == 1
    assert seen("broken", 2.0) == "second!"
    assert seen("third", 2.0) == "third"
