import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.attempts import (
    Refused,
    is_final,
    news_may_help,
    news_within_s,
    next_choices,
    refused,
)
from router.routing_table import Endpoint, RoutingTable
from services.status import DETAILS_KEY, code_of, to_status
from shards.errors import (
    CorruptRecord,
    DeadlineExceeded,
    FailedModel,
    FieldViolation,
    HeadraceError,
    InvalidInput,
    NoRoomYet,
    NotFound,
    NotOwner,
    Overloaded,
    PermissionDenied,
    Unavailable,
)
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Stage

TOWER = ModelVersion("tower", "1")
ONE, TWO, THREE = (Endpoint(f"s{n}", f"h:{n}") for n in (1, 2, 3))


def table(*holders: Endpoint, others: tuple[Endpoint, ...] = (), generation: int = 1) -> RoutingTable:
    assignment = Assignment(
        model=TOWER, stage=Stage.RETRIEVAL, shard_ids=tuple(holder.shard_id for holder in holders)
    )
    return RoutingTable(
        Placement(
            generation=generation,
            endpoints={shard.shard_id: shard.address for shard in (*holders, *others)},
            assignments={TOWER: assignment},
        )
    )


def of_grpc(code: grpc.StatusCode) -> Refused:
    return refused(ONE, grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "oh"))


def of_shard(error: HeadraceError) -> Refused:
    status = to_status(error)
    details = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return refused(ONE, grpc.aio.AioRpcError(code_of(status), grpc.aio.Metadata(), details, status.message))


GONE, DRAINING = of_grpc(grpc.StatusCode.UNAVAILABLE), of_shard(Unavailable("draining"))


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    ],
)
def test_what_grpc_says_of_a_connection_is_a_replica_that_is_gone(code: grpc.StatusCode) -> None:
    refusal = of_grpc(code)
    assert isinstance(refusal.error, Unavailable)
    assert not refusal.told
    assert not is_final(refusal)


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (InvalidInput(FieldViolation("filter", "is wrong")), True),
        (HeadraceError("a bug"), False),
        (CorruptRecord("users", "u1", "damaged"), False),
        (NotFound("model", "tower"), True),
        (PermissionDenied("no"), True),
        (Overloaded("full", retry_after_s=1.0), False),
        (DeadlineExceeded("late"), False),
        (NotOwner("tower@1"), False),
        (Unavailable("draining"), False),
    ],
)
def test_what_a_shard_says_stays_what_it_is(error: HeadraceError, final: bool) -> None:
    refusal = of_shard(error)
    assert type(refusal.error) is type(error)
    assert refusal.told
    assert is_final(refusal) is final


@pytest.mark.parametrize(
    ("refusal", "used", "newest", "expected"),
    [
        (GONE, table(ONE, TWO), table(ONE, TWO), (TWO,)),
        (GONE, table(ONE), table(ONE), (ONE,)),
        (DRAINING, table(ONE), table(ONE), ()),
        (DRAINING, table(ONE, TWO), table(ONE, TWO), (TWO,)),
        (GONE, table(ONE), table(THREE), (THREE,)),
        (GONE, table(ONE, TWO), RoutingTable(Placement()), (TWO,)),
        (
            of_shard(NotOwner("tower@1", owner="s3")),
            table(ONE, TWO),
            table(TWO, others=(THREE,)),
            (THREE,),
        ),
        (of_shard(NotOwner("tower@1", owner="lost")), table(ONE), table(TWO), (TWO,)),
        (of_shard(NotOwner("tower@1", owner="new", generation=2)), table(ONE, TWO), table(ONE, TWO), ()),
        (of_shard(NotOwner("tower@1")), table(ONE, TWO), table(ONE, TWO), (TWO,)),
        (of_shard(NotOwner("tower@1", owner="s1")), table(ONE), table(ONE), ()),
        (of_shard(DeadlineExceeded("late")), table(ONE, TWO), table(ONE, TWO), ()),
        (of_shard(Overloaded("full", retry_after_s=1.0)), table(ONE, TWO), table(ONE, TWO), (TWO,)),
        (of_shard(NoRoomYet("full", retry_after_s=1.0)), table(ONE, TWO), table(ONE, TWO), ()),
        (of_shard(HeadraceError("a bug")), table(ONE, TWO), table(ONE, TWO), (TWO,)),
        (of_shard(HeadraceError("a bug")), table(ONE), table(ONE), ()),
    ],
)
def test_the_next_choice(
    refusal: Refused, used: RoutingTable, newest: RoutingTable, expected: tuple[Endpoint, ...]
) -> None:
    assert next_choices(refusal, [ONE], (TOWER,), used, newest) == expected


def test_a_sole_replica_that_is_gone_is_asked_twice_only() -> None:
    assert next_choices(GONE, [ONE, ONE], (TOWER,), table(ONE), table(ONE)) == ()


def test_nobody_is_asked_again_for_having_been_named() -> None:
    named = of_shard(NotOwner("tower@1", owner="s2"))
    assert next_choices(named, [TWO, ONE], (TOWER,), table(ONE, TWO), table(ONE, TWO)) == ()


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (GONE, False),
        (DRAINING, True),
        (of_shard(NotOwner("tower@1")), True),
        (of_shard(FailedModel("is corrupt")), False),
        (of_shard(Overloaded("full", retry_after_s=1.0)), False),
    ],
)
def test_news_help_who_was_sent_away(refusal: Refused, expected: bool) -> None:
    assert news_may_help(refusal) is expected


@given(st.floats(0.1, 60.0))
def test_news_cost_a_share_of_the_time(remaining_s: float) -> None:
    assert 0 < news_within_s(remaining_s) <= remaining_s / 3
