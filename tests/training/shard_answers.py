"""What a real shard process answers for a bundle, over gRPC."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from services import codec
from shards.release import ModelVersion
from shards.search_context import SearchContext
from tests.services.process_shards import process_shards
from tests.services.shard_client import connect


def asked(
    root: Path, state_dir: Path, model: ModelVersion, contexts: Sequence[SearchContext], *, k: int = 20
) -> list[tuple[str, ...]]:
    """Return the `k` items that a shard which loads the bundle from `root` finds for each search."""

    async def main() -> list[tuple[str, ...]]:
        async with process_shards(state_dir) as host:
            await host.start("shard-0")
            async with connect(await host.address("shard-0")) as client:
                await client.load(model, root / model.model / model.version)
                answers = [
                    await client.retrieve(codec.Retrieval(model=model, context=context, k=k))
                    for context in contexts
                ]
        return [answer.candidates.item_ids for answer in answers]

    return asyncio.run(main())
