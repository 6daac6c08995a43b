"""What every plan promises, whatever the phases did."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from shards.planner_board import GPU, HOST, Board
from shards.planner_demand import Demand
from shards.planner_facts import Assigned, ModelFacts, Plan


def validate(answer: Plan, board: Board, previous: Assigned, demand: Sequence[Demand]) -> None:
    """Assert that memory suffices, that replicas are neither too many nor missing unsaid, and who gains."""
    missing = {unplaced.model for unplaced in answer.unplaced}
    held: dict[str, list[ModelFacts]] = defaultdict(list)
    for facts, wanted in zip(board.models, demand, strict=True):
        holders = answer.assignments[facts.model]
        assert len(set(holders)) == len(holders) <= wanted.most, f"{facts.model} has replicas {holders}"
        short = len(holders) < wanted.least and facts.model not in missing
        assert not short or facts.optional, f"{facts.model} has {len(holders)} replicas and nobody is told"
        for shard_id in holders:
            held[shard_id].append(facts)
        if gained := set(holders) - set(previous.get(facts.model, ())):
            closed = [s for s in gained if not board.gains[board.shard_number[s]]]
            assert not closed, f"{facts.model} is given to {closed}, which may gain nothing"
    for shard_id, models in held.items():
        _validate_memory(board, shard_id, models)


def _validate_memory(board: Board, shard_id: str, models: Sequence[ModelFacts]) -> None:
    shard = board.shards[board.shard_number[shard_id]]
    fixed: Counter[int] = Counter()
    shared: Counter[int] = Counter()
    for facts in models:
        for dimension, size_bytes in ((HOST, facts.memory_bytes), (GPU, facts.gpu_memory_bytes)):
            if facts.on_demand:
                shared[dimension] = max(shared[dimension], size_bytes)
            else:
                fixed[dimension] += size_bytes
    used = [fixed[dimension] + shared[dimension] for dimension in (HOST, GPU)]
    assert used[HOST] <= shard.capacity_bytes, f"{shard_id} holds {used[HOST]} bytes"
    assert used[GPU] <= shard.gpu_capacity_bytes, f"{shard_id} holds {used[GPU]} bytes of GPU memory"
