"""Chooses how item vectors are indexed: the kind of index, and how far a search looks in it.

Optuna (Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019) proposes
FAISS factory strings and knobs by multi-objective TPE; each is measured by searches one at a time on one
thread, as a shard makes them. What was built and tried lies in a folder: a run that was broken off goes on.

Legend: N = items, D = width of a vector, Q = queries, K = neighbours wanted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss as faiss_module
import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from shards.ann_index import AnnIndex, AnnKnobs, set_knobs
from shards.candidates import Floats
from training.item_index import build, lists_for
from training.studies import completed, open_study

faiss: Any = faiss_module
"""Its stubs leave out factories."""

Rows = NDArray[np.int64]

_MOST_LISTS_PROBED, _MOST_REFINED, _WIDEST_BEAM = 256, 16.0, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnTarget:
    """What a choice must reach: recall among the `k` nearest, and the p99 of a search by one thread.

    Times are processor time, which other work on the machine changes little.
    """

    k: int = 100
    recall: float = 0.99
    p99_ms: float = 5.0

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 < self.recall <= 1 or self.p99_ms <= 0:
            raise ValueError("k and p99_ms must be positive and recall a share above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """Query vectors [Q, D]: those that settings are compared on, and those that the choice is told by."""

    compared_QD: Floats
    held_out_QD: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One setting and what it gave."""

    factory: str
    knobs: AnnKnobs
    recall: float
    median_ms: float
    p99_ms: float

    def reaches(self, target: AnnTarget) -> bool:
        """Say whether it is good enough."""
        return self.recall >= target.recall and self.p99_ms <= target.p99_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The choice, measured on held-out queries, its index with the knobs set, and all that was tried."""

    choice: Measured
    index: Any
    tried: tuple[Measured, ...]


def factories_for(count: int, width: int) -> tuple[str, ...]:
    """Return the kinds of index that are worth a try for so many vectors."""
    lists = lists_for(count)
    kinds = ["Flat", f"IVF{lists},SQ8", "HNSW16"]
    # Fast-scan takes codes of 4 bits for pairs of dimensions.
    kinds += [f"IVF{lists},PQ{width // 2}x4fs,RFlat"] if width % 2 == 0 else []
    return tuple(kinds)


@dataclass(slots=True, kw_only=True)
class AnnTuner:
    """Tunes for one set of vectors; `folder` keeps indexes and trials, and is for these vectors alone."""

    vector_ND: Floats
    queries: Queries
    target: AnnTarget
    factories: Sequence[str]
    folder: Path
    seed: int = 0
    on_trial: Callable[[Measured], None] = lambda _: None
    _held: tuple[str, Any] = field(default=("", None), init=False)
    """The index that was used last: they are large."""

    def tune(self, trials: int) -> Tuned:
        """Try so many settings in all, trials of earlier runs included, and return the fastest that will do.

        Where none reaches the target, it is the one of the best recall.
        """
        exact_QK = nearest(self.vector_ND, self.queries.compared_QD, self.target.k)
        study = self._study()
        while len(completed(study)) < trials:
            self._try(study, exact_QK)
        tried = tuple(_measured(trial) for trial in completed(study))
        return self.told(best_of(tried, self.target), tried)

    def told(self, choice: Measured, tried: Sequence[Measured]) -> Tuned:
        """Return a choice with its index, measured on the queries that nothing was compared on."""
        index = self._index(choice.factory)
        set_knobs(index, choice.knobs)
        queries_QD = self.queries.held_out_QD
        exact_QK = nearest(self.vector_ND, queries_QD, self.target.k)
        told = measure(index, queries_QD, exact_QK, choice)
        return Tuned(choice=told, index=index, tried=tuple(tried))

    def _study(self) -> optuna.Study:
        study = open_study(
            self.folder,
            f"recall@{self.target.k}",
            ["maximize", "minimize"],
            seed=self.seed,
            startup=3 * len(self.factories),
        )
        for factory in self.factories:
            # Every kind is seen, however the others do, and what it can reach.
            study.enqueue_trial(_generous(factory, self.target.k), skip_if_exists=True)
        return study

    def _try(self, study: optuna.Study, exact_QK: Rows) -> None:
        trial = study.ask()
        factory = trial.suggest_categorical("factory", list(self.factories))
        knobs = _proposed(trial, factory, self.target.k)
        index = self._index(factory)
        set_knobs(index, knobs)
        setting = Measured(factory=factory, knobs=knobs, recall=0.0, median_ms=0.0, p99_ms=0.0)
        found = measure(index, self.queries.compared_QD, exact_QK, setting)
        trial.set_user_attr("p99_ms", found.p99_ms)
        study.tell(trial, (found.recall, found.median_ms))
        self.on_trial(found)

    def _index(self, factory: str) -> Any:
        """Return the index of a kind with all vectors, built once."""
        if self._held[0] != factory:
            self._held = ("", None)
            path = self.folder / f"{factory.replace(',', '-')}.faiss"
            if not path.exists():
                _write_whole(build(self.vector_ND, factory, self.seed), path)
            self._held = (factory, faiss.read_index(str(path)))
        return self._held[1]


def nearest(vector_ND: Floats, query_QD: Floats, k: int) -> Rows:
    """Return the rows [Q, K] of the nearest vectors by comparing all."""
    _, row_QK = faiss.knn(query_QD, vector_ND, k, metric=faiss.METRIC_INNER_PRODUCT)
    return row_QK  # type: ignore[no-any-return]


def measure(index: Any, query_QD: Floats, exact_QK: Rows, setting: Measured) -> Measured:
    """Return the setting with what searches of the index, one after the other, gave and took."""
    ann, k = AnnIndex(index), exact_QK.shape[1]
    found, took_ms = 0, []
    with _one_thread():
        for query_D, exact_K in zip(query_QD, exact_QK, strict=True):
            started = time.thread_time()
            _, rows = ann.search(query_D[np.newaxis], k)
            took_ms.append((time.thread_time() - started) * 1000)
            found += len(np.intersect1d(rows, exact_K))
    return Measured(
        factory=setting.factory,
        knobs=setting.knobs,
        recall=found / exact_QK.size,
        median_ms=float(np.median(took_ms)),
        p99_ms=float(np.quantile(took_ms, 0.99)),
    )


def best_of(tried: Sequence[Measured], target: AnnTarget) -> Measured:
    """Return the fastest that reaches the target, or the one of the best recall where none does."""
    good = [measured for measured in tried if measured.reaches(target)]
    return min(good, key=lambda m: m.median_ms) if good else max(tried, key=lambda m: m.recall)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What a FAISS factory string says: its inverted lists, whether it refines, whether it is a graph."""

    lists: int
    refines: bool
    graph: bool

    @classmethod
    def of(cls, factory: str) -> "_Kind":
        """Return what the string says."""
        first, *others = factory.split(",")
        return cls(
            lists=int(first.removeprefix("IVF")) if first.startswith("IVF") else 0,
            refines=bool(others) and others[-1].startswith("R"),
            graph=first.startswith("HNSW"),
        )


def _proposed(trial: optuna.Trial, factory: str, k: int) -> AnnKnobs:
    kind = _Kind.of(factory)
    nprobe, k_factor, ef_search = 0, 0.0, 0
    if kind.lists:
        nprobe = trial.suggest_int("nprobe", 1, min(kind.lists, _MOST_LISTS_PROBED), log=True)
    if kind.refines:
        k_factor = trial.suggest_float("k_factor", 1.0, _MOST_REFINED, log=True)
    if kind.graph:
        # A narrower beam may end before it met k items, and then the whole graph is looked at.
        ef_search = trial.suggest_int("ef_search", k, k * _WIDEST_BEAM, log=True)
    return AnnKnobs(nprobe=nprobe, k_factor=k_factor, ef_search=ef_search)


def _generous(factory: str, k: int) -> dict[str, str | int | float]:
    """Return a trial that looks far, from which others go back as far as the target lets them."""
    kind = _Kind.of(factory)
    params: dict[str, str | int | float] = {"factory": factory}
    if kind.lists:
        params["nprobe"] = min(max(1, kind.lists // 4), _MOST_LISTS_PROBED)
    if kind.refines:
        params["k_factor"] = _MOST_REFINED / 2
    if kind.graph:
        params["ef_search"] = k * _WIDEST_BEAM // 2
    return params


def _measured(trial: FrozenTrial) -> Measured:
    recall, median_ms = trial.values
    params = trial.params
    return Measured(
        factory=params["factory"],
        knobs=AnnKnobs(
            nprobe=params.get("nprobe", 0),
            k_factor=params.get("k_factor", 0.0),
            ef_search=params.get("ef_search", 0),
        ),
        recall=recall,
        median_ms=median_ms,
        p99_ms=trial.user_attrs["p99_ms"],
    )


def _write_whole(index: Any, path: Path) -> None:
    """Write an index under another name first, so that a run that is broken off leaves none that is half."""
    partial = path.with_suffix(".writing")
    faiss.write_index(index, str(partial))
    partial.rename(path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Search by one thread, as a shard does, where building takes all."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
