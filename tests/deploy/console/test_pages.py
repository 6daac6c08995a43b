"""What the pages show of what a cluster says, and how they say what goes wrong."""

import re
from collections.abc import Iterator

import pytest

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2
from shards.errors import Conflict, FieldViolation, InvalidInput, Unavailable
from tests.deploy.console.visit import RANKER, Visit, visiting

PLAN = pb.Plan(
    plan_id="p",
    generation=12,
    moves=[
        pb.Move(
            model=RANKER,
            from_shard_id="shard-0",
            to_shard_id="shard-1",
            memory_bytes=3 << 20,
            reason="is full",
        )
    ],
    shards=[
        pb.ShardForecast(
            shard_id="shard-0", capacity_bytes=100 << 20, before_bytes=90 << 20, after_bytes=50 << 20
        )
    ],
)
RUNNING = pb.Operation(
    operation_id="abc123def",
    kind="apply-plan",
    state=pb.OPERATION_STATE_RUNNING,
    steps_done=1,
    steps_total=4,
    detail="loading ranker@7 on shard-1",
    apply_plan=pb.ApplyPlanRequest(plan=PLAN),
)


@pytest.fixture(scope="module")
def looking() -> Iterator[Visit]:
    with visiting() as visit:
        yield visit


@pytest.fixture
def operating() -> Iterator[Visit]:
    with visiting(operate=True) as visit:
        visit.cluster.answers["PlanRebalance"] = pb.PlanRebalanceResponse(plan=PLAN)
        visit.cluster.states = [RUNNING]
        yield visit


def text_of(page: str) -> str:
    """Return what a reader sees, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_shard_map_shows_memory_state_load_and_bundles(looking: Visit) -> None:
    page = looking.page("/shards")
    shown = text_of(page)
    for expected in ("30.0 MB of 120.0 MB", "25.0%", "12.5 /s", "serving", "down", "a library leaks", "#12"):
        assert expected.replace(" /s", "/s") in shown
    assert 'aria-label="shard-0 uses 30.0 MB of 120.0 MB"' in page
    assert re.search(r'width="25.00" height="8.00" class="fill-ranking"', page)
    assert "Drain" not in shown


def test_a_part_of_a_page_that_has_not_changed_is_not_sent_again(looking: Visit) -> None:
    first = looking.browser.get("/shards/live")
    seen = first.headers["x-headrace-seen"]
    assert looking.browser.get("/shards/live", params={"seen": seen}).status_code == 204
    assert looking.browser.get("/shards/live", params={"seen": "else"}).status_code == 200


def test_a_search_shows_scores_contributions_gate_funnel_and_times(looking: Visit) -> None:
    page = looking.page("/search?surface=shop&q=mug&user=u1&items=2&filter=colour%3Dred,blue;-price%3D..5")
    shown = text_of(page)
    for expected in (
        "BLUE &lt;MUG&gt;",
        "takes_query_share +0.38",
        "price_gbp -0.12",
        "purchase 0.625",
        "gain_unlikely",
        "expected gain 0.250 against 0.400",
        "8.0 ms",
        "lexical #2",
        "3 candidates",
    ):
        assert expected in shown
    assert "item-2: merged #2, ranked #1, page #1" in page
    asked = looking.router.asked[-1]
    assert (asked.query, asked.user_id, asked.page_size, asked.contributions) == ("mug", "u1", 2, 2)
    assert asked.explain
    colour, price = asked.filter.clauses
    assert list(colour.any_of.values) == ["red", "blue"]
    assert (price.negate, price.range.max, price.range.HasField("min")) == (True, 5.0, False)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=mug&surface=shop&filter=colour", "filter: &#39;colour&#39; is not NAME=VALUE"),
        ("q=mug&surface=shop&filter=price%3Da..b", "no range of numbers"),
        ("q=mug&surface=shop&items=0", "items: must be 1 to 100"),
    ],
)
def test_what_cannot_be_searched_for_is_named(looking: Visit, query: str, expected: str) -> None:
    assert expected in looking.page(f"/search?{query}", 400)


def test_a_search_without_a_controller_is_answered_and_says_so() -> None:
    with visiting() as visit:
        visit.cluster.answers["ListReleases"] = Unavailable("it restarts")
        shown = visit.page("/search?surface=shop&q=mug")
        assert "The controller does not answer" in shown
        assert "BLUE &lt;MUG&gt;" in shown
        visit.cluster.answers["ListShards"] = Unavailable("it restarts")
        assert "it restarts" in visit.page("/shards", 503)
        assert "it restarts" in visit.page("/shards/live")


def test_what_the_router_refuses_is_readable(looking: Visit) -> None:
    kept, looking.router.answer = (
        looking.router.answer,
        InvalidInput(FieldViolation("filter.clauses[0].attribute", "'weight' is no attribute")),
    )
    shown = looking.page("/search?surface=shop&q=mug", 400)
    looking.router.answer = kept
    assert "filter.clauses[0].attribute: &#39;weight&#39; is no attribute" in shown


def test_a_plan_is_previewed_applied_and_watched(operating: Visit) -> None:
    page = operating.page("/plan?model=ranker@7&from=shard-0&to=shard-1")
    asked = operating.cluster.named("PlanRebalance")[-1]
    assert (asked.moves[0].from_shard_id, asked.moves[0].to_shard_id) == ("shard-0", "shard-1")
    shown = text_of(page)
    for expected in ("is full", "90.0 MB", "50.0 MB", "Apply 1 move"):
        assert expected in shown
    document = re.search(r'name="plan" value="([^"]+)"', page)
    assert document
    sent = operating.send("/plan/apply", plan=document[1].replace("&#34;", '"'))
    assert (sent.status_code, sent.headers["location"]) == (303, "/operations/abc123def")
    assert operating.cluster.named("ApplyPlan")[0].plan == PLAN
    watched = operating.page("/operations/abc123def")
    assert '<progress max="4" value="1"' in watched
    assert "Cancel" in watched
    ended = pb.Operation()
    ended.CopyFrom(RUNNING)
    ended.state = pb.OPERATION_STATE_SUCCEEDED
    operating.cluster.states = [ended]
    last = operating.browser.get("/operations/abc123def/live")
    assert last.status_code == 286
    assert "succeeded" in last.text


def test_a_plan_that_is_out_of_date_says_so(operating: Visit) -> None:
    operating.cluster.answers["ApplyPlan"] = Conflict("planned on generation 12, now 13")
    refused = operating.send("/plan/apply", plan="{}")
    assert refused.status_code == 409
    assert "Plan again" in refused.text
    assert "planned on generation 12, now 13" in refused.text
    assert operating.send("/plan/apply", plan="no plan").status_code == 400


def test_pages_that_are_not_there_and_faults_show_no_trace(operating: Visit) -> None:
    assert "There is no such page" in operating.page("/nothing", 404)
    operating.cluster.answers["ListShards"] = RuntimeError("secret inside")
    shown = operating.page("/shards", 502)
    assert "secret inside" not in shown
    assert "Traceback" not in shown


def test_live_quality_is_shown_once_there_is_any() -> None:
    with visiting() as visit:
        assert "/quality" not in visit.page("/shards")
        models = visit.cluster.answers["ListModels"]
        assert isinstance(models, pb.ListModelsResponse)
        quality = models.models[0].replicas[0].replica.quality
        quality.live_recall.CopyFrom(
            shard_service_pb2.Recall(mean=0.875, low=0.81, high=0.92, searches=1_234)
        )
        quality.recall_alarm = True
        quality.drifts.add(column="feature price_gbp", psi=0.5, ks=0.25, searches=300, drifted=True)
        assert 'href="/quality"' in visit.page("/shards")
        shown = text_of(visit.page("/quality"))
        for expected in (
            "0.875 0.810 to 0.920 1,234",
            "too low",
            "feature price_gbp",
            "0.500 0.250 300 drifted",
        ):
            assert expected in shown


def test_a_state_of_a_newer_contract_is_shown_as_unknown() -> None:
    with visiting() as visit:
        shards = visit.cluster.answers["ListShards"]
        assert isinstance(shards, pb.ListShardsResponse)
        shards.shards[0].MergeFromString(b"\x18\x63")
        assert "unknown" in visit.page("/shards")
