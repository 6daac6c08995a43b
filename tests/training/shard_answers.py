"""What a real shard process answers for a bundle, over gRPC."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from services import codec
from shards.candidates import Candidates
from shards.release import ModelVersion
from shards.search_context import SearchContext
from tests.services.process_shards import process_shards
from tests.services.shard_client import ShardClient, connect

A = TypeVar("A")


def asked(
    root: Path, state_dir: Path, model: ModelVersion, contexts: Sequence[SearchContext], *, k: int = 20
) -> list[tuple[str, ...]]:
    """Return the `k` items that a shard which loads the bundle from `root` finds for each search."""

    async def found(client: ShardClient, context: SearchContext) -> tuple[str, ...]:
        answer = await client.retrieve(codec.Retrieval(model=model, context=context, k=k))
        return answer.candidates.item_ids

    return _answers(root, state_dir, model, contexts, found)


def ranked(
    root: Path,
    state_dir: Path,
    model: ModelVersion,
    contexts: Sequence[SearchContext],
    candidates: Candidates,
) -> list[Candidates]:
    """Return the candidates as a shard which loads the ranker from `root` puts them for each search."""

    async def scored(client: ShardClient, context: SearchContext) -> Candidates:
        call = codec.Scoring(model=model, context=context, candidates=candidates)
        return (await client.rank(call)).candidates

    return _answers(root, state_dir, model, contexts, scored)


def _answers(
    root: Path,
    state_dir: Path,
    model: ModelVersion,
    contexts: Sequence[SearchContext],
    ask: Callable[[ShardClient, SearchContext], Awaitable[A]],
) -> list[A]:
    async def main() -> list[A]:
        async with process_shards(state_dir) as host:
            await host.start("shard-0")
            async with connect(await host.address("shard-0")) as client:
                await client.load(model, root / model.model / model.version)
                return [await ask(client, context) for context in contexts]

    return asyncio.run(main())
