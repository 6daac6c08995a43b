"""Which shards a cluster shall have and which of them shall hold nothing: what intent and operations say.

An operation counts as long as it runs, and becomes part of the intent when it succeeds; one that ends in
another way has nothing to undo.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from shards.changes import DrainShard, ScaleShards
from shards.intent import Intent

_NUMBER = re.compile(r"\d+$")


def settled_ids(configured: tuple[str, ...], intent: Intent) -> tuple[str, ...]:
    """Return the shards of the cluster before any operation that runs."""
    return intent.shard_ids or configured


def desired_ids(configured: tuple[str, ...], intent: Intent) -> tuple[str, ...]:
    """Return the shards that the cluster shall have."""
    ids = settled_ids(configured, intent)
    for operation in intent.operations:
        if operation.running and isinstance(operation.change, ScaleShards):
            ids = scaled_ids(ids, operation.change.shards)
    return ids


def gpu_fraction(intent: Intent) -> float | None:
    """Return the share of a GPU that shards started from now on get; None as they were configured."""
    fraction = intent.gpu_fraction
    for operation in intent.operations:
        if operation.running and isinstance(operation.change, ScaleShards):
            fraction = fraction if operation.change.gpu_fraction is None else operation.change.gpu_fraction
    return fraction


def scaled_ids(ids: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return `count` shard ids: the lowest-numbered of these and, if they are too few, new ones."""
    kept = sorted(ids, key=shard_number)[:count]
    number = 0
    while len(kept) < count:
        if f"shard-{number}" not in kept:
            kept.append(f"shard-{number}")
        number += 1
    return tuple(kept)


def shard_number(shard_id: str) -> tuple[int, str]:
    """Return what shards are ordered by: the number at the end of the id."""
    found = _NUMBER.search(shard_id)
    return (int(found.group()) if found else 0, shard_id)


def drained_ids(intent: Intent) -> frozenset[str]:
    """Return the shards that operators want empty."""
    draining = (o.change for o in intent.operations if o.running)
    return frozenset(intent.drained).union(c.shard_id for c in draining if isinstance(c, DrainShard))


def emptied_ids(configured: tuple[str, ...], intent: Intent, known: Iterable[str]) -> frozenset[str]:
    """Return which of the known shards shall hold nothing: drained ones and those that shall go."""
    return drained_ids(intent).union(set(known).difference(desired_ids(configured, intent)))


def with_scale(configured: tuple[str, ...], intent: Intent, change: ScaleShards) -> Intent:
    """Return the intent once a scaling has succeeded."""
    ids = scaled_ids(settled_ids(configured, intent), change.shards)
    fraction = intent.gpu_fraction if change.gpu_fraction is None else change.gpu_fraction
    drained = tuple(shard_id for shard_id in intent.drained if shard_id in ids)
    return replace(intent, shard_ids=ids, gpu_fraction=fraction, drained=drained)
