"""The three stages answer over a real channel, and refuse what they must."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services import codec
from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from shards.candidates import Candidates
from shards.cascade import CascadeCall, CascadeStep
from shards.errors import InvalidInput, NotOwner, Overloaded, Unavailable
from shards.merging import ChannelResult, merge, with_columns
from shards.release import ModelVersion, ReleaseScorer, Stage
from shards.search_context import FilterClause, SearchContext
from tests.services.shard_client import NOW_MS, Models, ShardClient, connect


def run(models: Models, tmp_path: Path, check: Callable[[ShardClient], Awaitable[None]]) -> None:
    """Run the check against a shard that holds every model of the release."""

    async def main() -> None:
        config = ShardConfig(shard_id="shard-1", state_dir=tmp_path)
        async with ShardServer(config) as server, connect(server.address) as client:
            for model in models.release.models():
                await client.load(model, models.path(model))
            await check(client)

    asyncio.run(main())


def scoring(scorer: ReleaseScorer | None, found: codec.StageAnswer | codec.CascadeAnswer) -> codec.Scoring:
    assert scorer is not None
    return codec.Scoring(
        model=scorer.model,
        context=SearchContext(query="mug", now_ms=NOW_MS),
        candidates=found.candidates,
        keep=2,
    )


def test_a_search_passes_the_three_stages(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        for channel in models.release.channels:
            found = await client.retrieve(models.retrieval(model=channel.model))
            assert found.model == channel.model
        found = await client.retrieve(models.retrieval())
        assert found.shard_id == "shard-1"
        assert found.compute_s > 0
        assert found.queue_s >= 0
        assert 2 < len(found.candidates) <= 5

        pre_ranked = await client.pre_rank(scoring(models.release.pre_ranker, found))
        assert list(pre_ranked.candidates.columns) == ["score"]
        ranked = await client.rank(scoring(models.release.ranker, found))
        assert "score" in ranked.candidates.columns
        assert len(ranked.candidates.columns) > 1
        for answer in (pre_ranked, ranked):
            assert len(answer.candidates) == 2
            assert set(answer.candidates.item_ids) <= set(found.candidates.item_ids)
            scores = answer.candidates.columns["score"]
            assert np.isfinite(scores).all()
            assert scores[0] >= scores[1]

    run(models, tmp_path, check)


def whole(models: Models, **changed: Any) -> CascadeCall:
    """Return the call of all stages of the release, for the two best of ten that are merged."""
    pre_ranker, ranker = models.release.pre_ranker, models.release.ranker
    assert pre_ranker is not None
    assert ranker is not None
    channels = [
        CascadeStep(stage=Stage.RETRIEVAL, channel=channel.name, model=channel.model, keep=5)
        for channel in models.release.channels
    ]
    scorers = (
        CascadeStep(stage=Stage.PRE_RANKING, model=pre_ranker.model, intake=10, keep=4),
        CascadeStep(stage=Stage.RANKING, model=ranker.model, intake=4, keep=2),
    )
    call = CascadeCall(
        context=SearchContext(query="mug", now_ms=NOW_MS),
        steps=(*channels, *scorers),
        merged=10,
        attributes=("title",),
        attribute_count=1,
    )
    return replace(call, **changed)


def test_all_stages_in_one_call_give_what_they_give_one_by_one(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        call = whole(models)
        answer = await client.run(call)
        found = [
            ChannelResult(
                name=channel.name,
                candidates=(await client.retrieve(models.retrieval(model=channel.model))).candidates,
            )
            for channel in models.release.channels
        ]
        merged = merge(found, limit=10)
        light = await client.pre_rank(
            replace(scoring(models.release.pre_ranker, answer), candidates=merged, keep=4)
        )
        pre_ranked = with_columns(merged, "pre_rank", light.candidates)
        heavy = await client.rank(
            replace(scoring(models.release.ranker, answer), candidates=pre_ranked, keep=2)
        )
        ranked = with_columns(pre_ranked, "rank", heavy.candidates)
        assert answer.candidates.item_ids == ranked.item_ids
        assert answer.candidates.columns.keys() == ranked.columns.keys()
        for name, column in ranked.columns.items():
            np.testing.assert_array_equal(answer.candidates.columns[name], column)
        assert len(answer.candidates.attributes["title"]) == 1
        assert [done.model for done in answer.done] == [step.model for step in call.steps]
        assert all(done.compute_s >= 0 for done in answer.done)
        assert (answer.shard_id, answer.done[-1].candidates) == ("shard-1", 2)
        # What was merged elsewhere is scored here.
        scored = await client.run(replace(call, steps=call.steps[-2:], candidates=merged))
        assert scored.candidates.item_ids == ranked.item_ids

    run(models, tmp_path, check)


def test_a_scorer_that_knows_no_candidate_is_no_fault_of_the_shard(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        unknown = Candidates(item_ids=("no-such-item",))
        call = whole(models, candidates=unknown)
        with pytest.raises(InvalidInput, match="knows none of the 1 candidates"):
            await client.run(replace(call, steps=call.steps[-2:]))

    run(models, tmp_path, check)


def test_steps_that_are_no_part_of_a_cascade_are_refused_by_name(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        *channels, light, heavy = whole(models).steps
        for steps, message in (
            ((), "must not be empty"),
            ((*channels, heavy, light), "in the order of the cascade"),
            ((light, light), "must not repeat"),
            ((replace(light, intake=0),), r"steps\[0\].intake"),
            ((replace(channels[0], keep=0), light), r"steps\[0\].keep"),
        ):
            with pytest.raises(InvalidInput, match=message):
                await client.run(whole(models, steps=tuple(steps)))

    run(models, tmp_path, check)


def test_one_model_that_is_not_held_refuses_the_whole_call(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        *others, heavy = whole(models).steps
        gone = replace(heavy, model=ModelVersion(heavy.model.model, "none"))
        with pytest.raises(NotOwner, match="none"):
            await client.run(whole(models, steps=(*others, gone)))
        held = await client.replicas()
        assert {held[step.model].requests for step in others} == {0}
        await client.run(whole(models))
        held = await client.replicas()
        assert {held[step.model].requests for step in others} == {1}

    run(models, tmp_path, check)


def test_a_model_of_another_stage_or_version_is_not_held(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        ranker = models.release.ranker
        assert ranker is not None
        with pytest.raises(InvalidInput, match="serves ranking, not retrieval"):
            await client.retrieve(models.retrieval(model=ranker.model))
        for model in (ModelVersion(ranker.model.model, "none"), ModelVersion("none", "1")):
            with pytest.raises(NotOwner) as caught:
                await client.retrieve(models.retrieval(model=model))
            assert model.model in caught.value.model

    run(models, tmp_path, check)


def test_bad_requests_name_their_fields(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        call = models.retrieval()
        with pytest.raises(InvalidInput) as caught:
            await client.retrieve(replace(call, model=ModelVersion(call.model.model, ""), k=0))
        assert [violation.field for violation in caught.value.violations] == ["k", "model.version"]
        for unknown in (replace(call, filter=(FilterClause(attribute="no-such", any_of=("x",)),)),):
            with pytest.raises(InvalidInput) as caught:
                await client.retrieve(unknown)
            assert caught.value.violations[0].field == "filter.clauses[0].attribute"

    run(models, tmp_path, check)


def test_a_drained_shard_refuses(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        assert await client.drain() == 0
        with pytest.raises(Unavailable, match="draining"):
            await client.retrieve(models.retrieval())
        assert (await client.shard()).draining

    run(models, tmp_path, check)


def test_a_call_without_a_deadline_is_answered(models: Models, tmp_path: Path) -> None:
    async def check(client: ShardClient) -> None:
        assert (await client.retrieve(models.retrieval(), timeout_s=None)).candidates.item_ids

    run(models, tmp_path, check)


def test_a_full_shard_refuses_at_once(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        # What is computed on the event loop is done before the next call is read, and nothing piles up.
        config = ShardConfig(shard_id="shard-1", state_dir=tmp_path, max_queue=0, inline_s=0.0)
        call = models.retrieval(model=ModelVersion("two_tower", "1"))
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.load(call.model, models.path(call.model))
            answers = await asyncio.gather(
                *(client.retrieve(call) for _ in range(100)), return_exceptions=True
            )
            refused = [answer for answer in answers if isinstance(answer, Overloaded)]
            answered = [answer for answer in answers if isinstance(answer, codec.StageAnswer)]
            assert len(refused) + len(answered) == 100
            assert refused
            assert answered
            assert refused[0].retry_after_s > 0
            assert (await client.retrieve(call)).candidates.item_ids

    asyncio.run(main())
