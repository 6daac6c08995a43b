"""Engine "gate": how likely embedding retrieval adds what a search is about. Torch-free: routers run it.

Files: gate.npz with the arrays of `GateKnowledge` and of both scorers, golden.npz. Params: `GateParams`. A
golden is asked about the candidates of the lexical channel, and answers with two "items", before and after.
Legend: F = features, D = hidden width.
"""

import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.bundle import Bundle, open_bundle
from shards.candidates import SCORE, Candidates
from shards.errors import CorruptBundle, MismatchedBundle
from shards.gate_features import AFTER, BEFORE, SearchFacts, after_features, facts_of
from shards.gate_knowledge import Floats, GateKnowledge
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.json_codec import from_json
from shards.manifest import MANIFEST_FILE
from shards.release import ModelVersion, Stage
from shards.search_context import SearchContext

GATE_FILE = "gate.npz"
ENGINE = "gate"

LARGEST = 6.0
"""Standardised features are cut here, so that what training never saw decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateParams:
    """The features that the scorers were trained on, the channel whose scores they look at, and their label.

    The label "recall" at a depth: a gated channel has the item that was taken among its first so many, and
    the other channels, merged, have not; the probability is that of the mean over `depths`. The label "page"
    adds what the gated channels add to the NDCG@10 of the page.
    """

    before: tuple[str, ...] = BEFORE
    after: tuple[str, ...] = AFTER
    channel: str
    label: str = "recall"
    depths: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateScorer:
    """A perceptron with one hidden layer over standardised features, and how its scores are spread.

    `quantiles` are the probabilities of searches that training looked at but did not learn from, rising
    and equally spaced: they turn a share of searches into a threshold.
    """

    mean_F: Floats
    scale_F: Floats
    hidden_FD: Floats
    hidden_bias_D: Floats
    out_D: Floats
    out_bias: Floats
    quantiles: Floats

    def __post_init__(self) -> None:
        features, width = self.hidden_FD.shape
        shapes = {
            "mean_F": (features,),
            "scale_F": (features,),
            "hidden_bias_D": (width,),
            "out_D": (width,),
            "out_bias": (),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        if any(not np.isfinite(getattr(self, name)).all() for name in self.__slots__):
            raise ValueError("a scorer must be finite")
        if (self.scale_F <= 0).any():
            raise ValueError("scale_F must be above 0")
        if len(self.quantiles) < 2 or (np.diff(self.quantiles) < 0).any():
            raise ValueError("quantiles must rise")

    def probability(self, features_F: Floats) -> float:
        """Return the expected gain, 0 to 1; NaN for features that are not finite."""
        x_F = np.clip((features_F - self.mean_F) / self.scale_F, -LARGEST, LARGEST)
        hidden_D = np.maximum(x_F @ self.hidden_FD + self.hidden_bias_D, 0.0)
        return float(1.0 / (1.0 + np.exp(-(hidden_D @ self.out_D + self.out_bias))))

    def quantile(self, probability: float) -> float:
        """Return the share of searches, 0 to 1, whose probability is lower; NaN for NaN."""
        places = np.linspace(0.0, 1.0, len(self.quantiles))
        return float(np.interp(probability, self.quantiles, places))

    def at_quantile(self, quantile: float) -> float:
        """Return the probability that a share of the searches stays below."""
        places = np.linspace(0.0, 1.0, len(self.quantiles))
        return float(np.interp(quantile, places, self.quantiles))


@dataclass(frozen=True, slots=True, kw_only=True)
class GateModel:
    """A gate's knowledge and its two scorers, for the decision before lexical retrieval and after it."""

    version: ModelVersion
    params: GateParams
    knowledge: GateKnowledge
    before: GateScorer
    after: GateScorer

    def __post_init__(self) -> None:
        for scorer, names in ((self.before, BEFORE), (self.after, AFTER)):
            if scorer.hidden_FD.shape[0] != len(names):
                raise ValueError(f"a scorer takes {scorer.hidden_FD.shape[0]} features, not {len(names)}")

    def facts(self, context: SearchContext) -> SearchFacts:
        """Return what is known of a search before any retrieval."""
        return facts_of(self.knowledge, context)

    def expected_gain(self, facts: SearchFacts, lexical: Candidates | None) -> tuple[float, float]:
        """Return the probability of a gain and its quantile; with lexical candidates also by their scores."""
        scorer = self.before if lexical is None else self.after
        features = facts.features if lexical is None else after_features(facts, lexical)
        probability = scorer.probability(features)
        return probability, scorer.quantile(probability)

    def threshold(self, quantile: float, *, after: bool) -> float:
        """Return the probability that belongs to a quantile."""
        return (self.after if after else self.before).at_quantile(quantile)

    def score(
        self,
        context: SearchContext,
        candidates: Candidates,
        keep: int,  # noqa: ARG002
        task_exponents: Mapping[str, float],  # noqa: ARG002
        attributes: tuple[str, ...],  # noqa: ARG002
        attribute_count: int,  # noqa: ARG002
        /,
    ) -> Candidates:
        """Return the probabilities before and after the lexical candidates, for goldens to be replayed."""
        facts = self.facts(context)
        gains = [self.expected_gain(facts, lexical)[0] for lexical in (None, candidates)]
        return Candidates(item_ids=("before", "after"), columns={SCORE: np.array(gains, np.float32)})


def open_gate(path: Path, expect: ModelVersion, trusted: Collection[str] = ()) -> GateModel:
    """Verify a gate's bundle, open it and replay its goldens; BundleError says what is wrong."""
    bundle = open_bundle(path, expect, trusted)
    manifest = bundle.manifest
    if manifest.stage is not Stage.GATE or manifest.engine != ENGINE:
        raise MismatchedBundle(
            MANIFEST_FILE, f"{expect} is {manifest.engine!r} for {manifest.stage.value}, no gate"
        )
    gate = _read(bundle)
    golden = read_golden(bundle.file(GOLDEN_FILE))
    replay(gate, golden, manifest.tolerance.rtol, manifest.tolerance.atol)
    return gate


def save_gate(folder: Path, gate: GateModel) -> None:
    """Write gate.npz."""
    arrays: dict[str, Any] = {f"knowledge/{name}": a for name, a in gate.knowledge.arrays().items()}
    for part, scorer in (("before", gate.before), ("after", gate.after)):
        arrays |= {f"{part}/{name}": getattr(scorer, name) for name in GateScorer.__slots__}
    np.savez_compressed(folder / GATE_FILE, **arrays)


def _read(bundle: Bundle) -> GateModel:
    params = _params(bundle)
    path = bundle.file(GATE_FILE)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return GateModel(
                version=bundle.manifest.model_version,
                params=params,
                knowledge=GateKnowledge.from_arrays(_part(arrays, "knowledge")),
                before=GateScorer(**_part(arrays, "before")),
                after=GateScorer(**_part(arrays, "after")),
            )
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptBundle(path.name, f"cannot be read: {error}") from error


def _params(bundle: Bundle) -> GateParams:
    try:
        params = from_json(GateParams, dict(bundle.manifest.params), "params")
    except ValueError as error:
        raise MismatchedBundle(MANIFEST_FILE, str(error)) from error
    if (params.before, params.after) != (BEFORE, AFTER):
        raise MismatchedBundle(MANIFEST_FILE, "was trained on other features than this version computes")
    return params


def _part(arrays: Any, part: str) -> dict[str, NDArray[Any]]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
