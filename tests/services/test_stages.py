"""The three stages answer over a real channel, and refuse what they must."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services import codec
from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from shards.errors import InvalidInput, NotOwner, Overloaded, Unavailable
from shards.release import ModelVersion, ReleaseScorer
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


def scoring(scorer: ReleaseScorer | None, found: codec.StageAnswer) -> codec.Scoring:
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
        config = ShardConfig(shard_id="shard-1", state_dir=tmp_path, max_queue=0)
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
