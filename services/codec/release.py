"""Releases: the pinned versions that answer for a surface."""

import re
from collections.abc import Mapping

import numpy as np

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.diversity import diversity_to_proto, read_diversity
from services.codec.moments import read_timestamp, timestamp_to_proto
from services.codec.release_quality import quality_to_proto, read_quality
from services.codec.stages import model_version_to_proto, read_model_version
from services.codec.violations import Field, collecting
from shards.release import GATE_MODES, LEARNED_MODES, GateRules, Release, ReleaseChannel, ReleaseScorer

MAX_RETRIEVED = 10_000
MAX_PRE_RANKED = 20_000
MAX_RANKED = 5_000
MAX_PARTITIONS = 256

_LONGEST_BUDGET_MS = 60_000
_LONGEST_HISTORY = 10_000


def release_to_proto(release: Release) -> pb.Release:
    """Return the message of a release."""
    return pb.Release(
        surface=release.surface,
        version=release.version,
        gate=_gate_to_proto(release.gate),
        channels=[_channel_to_proto(channel) for channel in release.channels],
        pre_ranker=_scorer_to_proto(release.pre_ranker) if release.pre_ranker else None,
        ranker=_scorer_to_proto(release.ranker) if release.ranker else None,
        merged=release.merged,
        task_exponents=dict(release.task_exponents),
        attributes=release.attributes,
        retrieval_budget_ms=release.retrieval_budget_ms,
        history_limit=release.history_limit,
        as_of=None if release.as_of_ms is None else timestamp_to_proto(release.as_of_ms),
        on_demand=release.on_demand,
        exclude_actions=release.exclude_actions,
        diversity=diversity_to_proto(release.diversity) if release.diversity else None,
        quality=quality_to_proto(release.quality) if release.quality else None,
    )


def _gate_to_proto(gate: GateRules) -> pb.GateRules:
    return pb.GateRules(
        mode=gate.mode,
        item_id_pattern=gate.item_id_pattern,
        allow=gate.allow,
        block=gate.block,
        min_query_chars=gate.min_query_chars,
        navigational=gate.navigational,
        navigational_share=gate.navigational_share,
        refinding_cover=gate.refinding_cover,
        model=model_version_to_proto(gate.model) if gate.model else None,
        target_rate=gate.target_rate,
        least_rate=gate.least_rate,
        shadow_percent=gate.shadow_percent,
    )


def _channel_to_proto(channel: ReleaseChannel) -> pb.ReleaseChannel:
    return pb.ReleaseChannel(
        name=channel.name,
        model=model_version_to_proto(channel.model),
        k=channel.k,
        quota=channel.quota,
        weight=channel.weight,
        gated=channel.gated,
        partitions=channel.partitions,
    )


def _scorer_to_proto(scorer: ReleaseScorer) -> pb.ReleaseScorer:
    return pb.ReleaseScorer(
        model=model_version_to_proto(scorer.model), candidates=scorer.candidates, budget_ms=scorer.budget_ms
    )


def release_from_proto(message: pb.Release) -> Release:
    """Return the release; raises `InvalidInput` with every field at fault, below "release"."""
    with collecting("release") as field:
        return read_release(message, field)


def read_release(message: pb.Release, field: Field) -> Release:
    """Return the release; refuses what no cluster could serve."""
    field.child("surface").check_set(message.surface)
    field.child("version").check_set(message.version)
    budget_ms = field.child("retrieval_budget_ms")
    budget_ms.check_between(message.retrieval_budget_ms, 1, _LONGEST_BUDGET_MS)
    field.child("merged").check_between(message.merged, 1, MAX_PRE_RANKED)
    field.child("history_limit").check_between(message.history_limit, 0, _LONGEST_HISTORY)
    as_of = message.as_of if message.HasField("as_of") else None
    pre_ranker = message.pre_ranker if message.HasField("pre_ranker") else None
    ranker = message.ranker if message.HasField("ranker") else None
    diversity = message.diversity if message.HasField("diversity") else None
    quality = message.quality if message.HasField("quality") else None
    return Release(
        surface=message.surface,
        version=message.version,
        gate=_read_gate(message.gate, field.child("gate")) if message.HasField("gate") else GateRules(),
        channels=_read_channels(message, field.child("channels")),
        pre_ranker=pre_ranker and _read_scorer(pre_ranker, field.child("pre_ranker"), MAX_PRE_RANKED),
        ranker=ranker and _read_scorer(ranker, field.child("ranker"), MAX_RANKED),
        merged=message.merged,
        task_exponents=read_exponents(message.task_exponents, field.child("task_exponents")),
        attributes=tuple(message.attributes),
        retrieval_budget_ms=message.retrieval_budget_ms,
        history_limit=message.history_limit,
        as_of_ms=None if as_of is None else read_timestamp(as_of, field.child("as_of")),
        on_demand=message.on_demand,
        exclude_actions=tuple(message.exclude_actions),
        diversity=diversity and read_diversity(diversity, field.child("diversity")),
        quality=quality and read_quality(quality, field.child("quality")),
    )


def read_exponents(exponents: Mapping[str, float], field: Field) -> dict[str, float]:
    """Return the exponent of each task; refuses those that are not finite."""
    for task in sorted(exponents):
        field.element(task).check_finite(exponents[task])
    return {task: _shortest(exponent) for task, exponent in exponents.items()}


def _shortest(number: float) -> float:
    """Return the shortest decimal that is this float32: .3, where the wire gives .30000001192092896.

    So a release survives the wire unchanged, and compares equal to the one that was sent.
    """
    return float(str(np.float32(number)))


def _read_gate(message: pb.GateRules, field: Field) -> GateRules:
    mode = message.mode or GateRules().mode
    field.child("mode").check(mode in GATE_MODES, f"must be one of {', '.join(GATE_MODES)}, not {mode!r}")
    try:
        re.compile(message.item_id_pattern)
    except re.error as error:
        field.child("item_id_pattern").refuse(f"must be a regular expression: {error}")
    field.child("min_query_chars").check(message.min_query_chars >= 0, "must not be negative")
    for name in ("navigational_share", "refinding_cover", "target_rate", "least_rate"):
        field.child(name).check(0 <= getattr(message, name) <= 1, "must be a share, 0 to 1")
    shadow = message.shadow_percent
    field.child("shadow_percent").check(0 <= shadow <= 100, "must be a share in percent, 0 to 100")
    if mode in LEARNED_MODES:
        field.child("model").check(message.HasField("model"), f"must be set, as mode {mode!r} needs one")
    return GateRules(
        mode=mode,
        item_id_pattern=message.item_id_pattern,
        allow=tuple(message.allow),
        block=tuple(message.block),
        min_query_chars=message.min_query_chars,
        navigational=tuple(message.navigational),
        navigational_share=message.navigational_share,
        refinding_cover=message.refinding_cover,
        model=read_model_version(message.model, field.child("model")) if message.HasField("model") else None,
        target_rate=message.target_rate if message.HasField("target_rate") else GateRules().target_rate,
        least_rate=message.least_rate,
        shadow_percent=message.shadow_percent,
    )


def _read_channels(message: pb.Release, field: Field) -> tuple[ReleaseChannel, ...]:
    field.check(len(message.channels) > 0, "must hold at least one channel")
    channels = tuple(_read_channel(channel, field.element(i)) for i, channel in enumerate(message.channels))
    names = [channel.name for channel in channels]
    for i, name in enumerate(names):
        field.element(i).child("name").check(name not in names[:i], f"must not repeat {name!r}")
    return channels


def _read_channel(message: pb.ReleaseChannel, field: Field) -> ReleaseChannel:
    field.child("name").check_set(message.name)
    field.child("k").check_between(message.k, 1, MAX_RETRIEVED)
    field.child("quota").check_between(message.quota, 0, MAX_RETRIEVED)
    field.child("partitions").check_between(message.partitions, 0, MAX_PARTITIONS)
    if field.child("weight").check_finite(message.weight):
        field.child("weight").check(message.weight >= 0, "must not be negative")
    return ReleaseChannel(
        name=message.name,
        model=read_model_version(message.model, field.child("model")),
        k=message.k,
        quota=message.quota,
        weight=_shortest(message.weight),
        gated=message.gated,
        partitions=max(1, message.partitions),
    )


def _read_scorer(message: pb.ReleaseScorer, field: Field, at_most: int) -> ReleaseScorer:
    field.child("candidates").check_between(message.candidates, 1, at_most)
    field.child("budget_ms").check_between(message.budget_ms, 1, _LONGEST_BUDGET_MS)
    return ReleaseScorer(
        model=read_model_version(message.model, field.child("model")),
        candidates=message.candidates,
        budget_ms=message.budget_ms,
    )
