"""How many requests per second each bundle gets, from the counters of the shards that answer them."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from shards.cluster_state import LoadSample
from shards.release import ModelVersion

_WINDOW_MS = 20_000
_APART_MS = 2_000
_STEADY = 0.3
"""A load that moved by less than this share is taken for the same one."""

_QUIET = 0.1
"""Requests per second below which a bundle counts as not asked for."""


def sampled(samples: tuple[LoadSample, ...], sample: LoadSample) -> tuple[LoadSample, ...]:
    """Return a shard's samples with one more, about as many as the window needs."""
    if samples and sample.at_ms - samples[-1].at_ms < _APART_MS:
        return samples
    return (*(s for s in samples if sample.at_ms - s.at_ms <= _WINDOW_MS), sample)


def shard_rates(samples: tuple[LoadSample, ...], now_ms: int) -> Mapping[ModelVersion, float]:
    """Return requests per second of each bundle on a shard over the window.

    A counter that a new life of the shard began anew, or that shrank, counts from 0.
    """
    kept = [sample for sample in samples if now_ms - sample.at_ms <= _WINDOW_MS + _APART_MS]
    if len(kept) < 2:
        return {}
    answered: Counter[ModelVersion] = Counter()
    for before, after in pairwise(kept):
        same_life = before.incarnation == after.incarnation
        for model, requests in after.requests.items():
            earlier = before.requests.get(model, 0) if same_life else 0
            answered[model] += requests - earlier if requests >= earlier else requests
    span_s = (kept[-1].at_ms - kept[0].at_ms) / 1000
    return {model: requests / span_s for model, requests in answered.items() if requests}


def model_rates(samples: Mapping[str, tuple[LoadSample, ...]], now_ms: int) -> Mapping[ModelVersion, float]:
    """Return requests per second of each bundle over all shards."""
    total: dict[ModelVersion, float] = {}
    for of_shard in samples.values():
        for model, rate in shard_rates(of_shard, now_ms).items():
            total[model] = total.get(model, 0.0) + rate
    return total


def steadied(
    before: Mapping[ModelVersion, float], now: Mapping[ModelVersion, float]
) -> Mapping[ModelVersion, float]:
    """Return the loads to plan with: those of before, except where the load has really moved."""
    steady = {}
    for model, rate in now.items():
        held = before.get(model, 0.0)
        steady[model] = held if held and abs(rate - held) <= _STEADY * held else rate
    return {model: rate for model, rate in steady.items() if rate >= _QUIET}
