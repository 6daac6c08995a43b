import asyncio
import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from deploy.evaluation import OnlineOptions, OnlineRun, run_online
from deploy.release_files import write_release
from deploy.user_loading import load_users
from deploy.workspace import Running, Workspace
from router.client import SearchError
from router.gate import decide
from shards.diversity import AttributeQuota, Diversity
from shards.errors import Unavailable
from shards.release import Release
from tests.deploy.commands import Finished, headrace_process
from tests.deploy.small_cluster import QUERIES, RELEASE, serving, shop, write_workspace
from tests.shards import bundles
from training.datasets import parquet
from training.datasets.splits import TimeSplit
from training.datasets.tables import timestamps_ms
from training.evaluation.judgements import Judged, judged_queries
from training.evaluation.offline import evaluate as evaluate_offline
from training.evaluation.offline import open_cascade
from training.evaluation.report import BM25, DIVERSIFIED, HYBRID, PRE_RANKED, RANKED, Ranks, compare

RANKINGS = ["lexical", "memory", "neighbours", "again", "two_tower", HYBRID, PRE_RANKED, RANKED]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written")
    write_workspace(root)
    return root


@pytest.fixture
def workspace(written: Path, tmp_path: Path) -> Path:
    """A workspace of the test's own."""
    return Path(shutil.copytree(written, tmp_path / "workspace"))


def judged() -> list[Judged]:
    return judged_queries(shop(), "test", limit=0, history_limit=RELEASE.history_limit)


def offline(workspace: Path) -> Ranks:
    cascade = open_cascade(RELEASE, workspace / "models")
    return evaluate_offline(cascade, judged(), gate=lambda context, _: decide(RELEASE.gate, context).open)


def test_the_cluster_ranks_as_one_process_does(workspace: Path) -> None:
    async def main() -> None:
        async with serving(workspace) as router:
            run = await run_online(router, RELEASE, judged(), OnlineOptions(concurrency=2))
        expected = offline(workspace)
        assert run.degraded == ()
        assert run.ranks.query_ids == expected.query_ids
        assert run.ranks.with_history.tolist() == expected.with_history.tolist()
        assert list(run.ranks.by_ranking) == RANKINGS
        assert list(expected.by_ranking) == [BM25, *RANKINGS]
        assert [d.ranking for d in compare(expected, run.ranks) if d.moved > 0] == []

    asyncio.run(main())


@pytest.mark.parametrize("scored", [True, False])
def test_the_cluster_makes_pages_as_diverse_as_one_process_does(workspace: Path, scored: bool) -> None:
    quota = AttributeQuota(attribute="colour", at_most=1, within=5)
    diversity = Diversity(relevance=0.5, attributes=("title",), quotas=(quota,))
    release = dataclasses.replace(RELEASE, diversity=diversity)
    if not scored:
        release = dataclasses.replace(release, pre_ranker=None, ranker=None)

    async def main() -> OnlineRun:
        async with serving(workspace, release) as router:
            return await run_online(router, release, judged(), OnlineOptions(concurrency=2))

    run = asyncio.run(main())
    cascade = open_cascade(release, workspace / "models")
    expected = evaluate_offline(cascade, judged(), gate=lambda context, _: decide(release.gate, context).open)
    assert [d.ranking for d in compare(expected, run.ranks) if d.moved > 0] == []
    before = HYBRID if not scored else RANKED
    by_ranking = run.ranks.by_ranking
    assert by_ranking[DIVERSIFIED].tolist() != by_ranking[before].tolist()


def test_the_rankings_of_the_test_differ_and_find_something(workspace: Path) -> None:
    # Otherwise agreement would say nothing.
    found = offline(workspace)
    assert 0 < found.with_history.sum() < QUERIES
    assert all(ranks.any() for ranks in found.by_ranking.values())
    assert len({tuple(ranks.tolist()) for ranks in found.by_ranking.values()}) == len(RANKINGS) + 1


def test_a_channel_behind_a_closed_gate_is_still_judged(workspace: Path) -> None:
    by_id = [query for query in judged() if query.context.query.startswith("item-")]

    async def main() -> None:
        async with serving(workspace) as router:
            run = await run_online(router, RELEASE, by_id, OnlineOptions())
        cascade = open_cascade(RELEASE, workspace / "models")
        expected = evaluate_offline(cascade, by_id, gate=lambda *_: False)
        assert run.ranks.by_ranking["two_tower"].any()
        assert run.ranks.by_ranking["two_tower"].tolist() == expected.by_ranking["two_tower"].tolist()
        assert run.ranks.by_ranking[HYBRID].tolist() == expected.by_ranking[HYBRID].tolist()

    asyncio.run(main())


def test_another_release_than_the_workspace_has_is_refused(workspace: Path) -> None:
    async def main() -> None:
        newer = dataclasses.replace(RELEASE, version="r2")
        async with serving(workspace) as router:
            with pytest.raises(Unavailable, match="serves release r1, not r2"):
                await run_online(router, newer, judged(), OnlineOptions())

    asyncio.run(main())


def test_a_router_that_is_not_there_is_an_error_and_no_hang() -> None:
    options = OnlineOptions(timeout_s=0.5)
    with pytest.raises(SearchError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
        asyncio.run(run_online("127.0.0.1:1", RELEASE, judged(), options))


def eval_online(
    workspace: Path, command: str = "eval", *, data: str = "data", release: Release = RELEASE
) -> Finished:
    """Run `headrace eval`, or another such command, beside the running cluster of the workspace."""

    async def main() -> Finished:
        folders = Workspace(workspace)
        async with serving(workspace, release) as router:
            with folders.claim():
                folders.note(Running(pid=os.getpid(), router=router, controller=router))
                asked = ("--workspace", str(workspace), "--dataset", str(workspace / data))
                return await headrace_process(command, *asked, "--online", "up", "--json")

    return asyncio.run(main())


def test_eval_command_through_a_running_cluster(workspace: Path) -> None:
    result = eval_online(workspace)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["agree"] is True
    assert document["queries"] == QUERIES
    assert [row["ranking"] for row in document["online"]] == RANKINGS
    yardstick, *offline_rows = document["offline"]
    assert yardstick["ranking"] == BM25
    assert document["online"] == offline_rows


def test_eval_command_fails_when_the_cluster_knows_another_past(workspace: Path) -> None:
    dataset = shop()
    forgetful = dataclasses.replace(dataset, events=dataset.events.slice(0, 0))
    load_users(forgetful, workspace / "users.lmdb")
    result = eval_online(workspace)
    assert result.exit_code == 1, result.stderr
    document = json.loads(result.stdout)
    assert document["agree"] is False
    assert any(sentence.startswith("again: ") for sentence in document["disagreements"])


def save_split(workspace: Path) -> None:
    """Save the shop as the dataset `split`, whose test is the second half of its month."""
    dataset = shop()
    half_ms = bundles.NOW_MS - 15 * bundles.DAY_MS
    labels = TimeSplit(valid_from_ms=half_ms, test_from_ms=half_ms).labels(timestamps_ms(dataset.queries))
    at = dataset.queries.column_names.index("split")
    queries = dataset.queries.set_column(at, "split", labels)
    parquet.save(dataclasses.replace(dataset, queries=queries), workspace / "split")


def test_eval_next_through_a_running_cluster_answers_the_same_pages(workspace: Path) -> None:
    release = dataclasses.replace(RELEASE, exclude_actions=("purchase",))
    write_release(Workspace(workspace), release)
    save_split(workspace)
    result = eval_online(workspace, "eval-next", data="split", release=release)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["differing"] == 0
    rankings = document["rankings"]
    assert list(rankings) == [*RANKINGS, f"{RANKED}, through the cluster"]
    assert rankings["again"]["hit_rate_20"] == 0.0, "what was bought before is left out"
    assert rankings[RANKED] == rankings[f"{RANKED}, through the cluster"]
    assert rankings[RANKED]["users"] > 0


def test_eval_next_without_anybody_to_ask_says_so(workspace: Path) -> None:
    data = str(workspace / "data")
    result = asyncio.run(headrace_process("eval-next", "--workspace", str(workspace), "--dataset", data))
    assert result.exit_code == 1
    assert result.stderr.startswith("headrace: ")
    assert "split: no user takes anything new in test of shop" in result.stderr


def test_eval_command_offline_prints_a_table(workspace: Path) -> None:
    data = str(workspace / "data")
    asked = ("--workspace", str(workspace), "--dataset", data, "--limit", "10")
    result = asyncio.run(headrace_process("eval", *asked))
    assert result.exit_code == 0, result.stderr
    for expected in (
        "shop, test: 10 queries",
        "BM25",
        "lexical (BM25 and",
        "two_tower (two-tower)",
        RANKED,
        "proxies",
    ):
        assert expected in result.stdout


def test_search_command(workspace: Path) -> None:
    async def main() -> tuple[Finished, Finished]:
        asked = ("search", "red mug", "--user", "u1", "--workspace", str(workspace))
        async with serving(workspace) as router:
            shown = await headrace_process(*asked, "--router", router, "--explain")
            return shown, await headrace_process(*asked, "--router", router, "--json")

    shown, as_json = asyncio.run(main())
    assert shown.exit_code == 0, shown.stderr
    for expected in (
        "“red mug” on shop for u1",
        "item-1",
        "two_tower #",
        "Gate open",
        "shard-0",
        "purchase",
        "title_overlap",
    ):
        assert expected in shown.stdout
    document = json.loads(as_json.stdout)
    assert len(document["items"]) == 10
    assert document["gate"]["reason"] == "default_open"


def test_search_command_without_a_cluster_says_so(workspace: Path) -> None:
    result = asyncio.run(headrace_process("search", "red mug", "--workspace", str(workspace)))
    assert result.exit_code == 1
    assert "no cluster runs" in result.stderr
