"""Goldens: requests and the scores that training saw, replayed before a replica may serve.

`golden.npz` holds float32 columns of all requests end to end and one JSON document; no pickle.

Legend: G = requests, K = items of one request.
"""

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.candidates import SCORE, Candidates, Floats
from shards.errors import CorruptBundle, MismatchedBundle
from shards.json_codec import from_json, parse, render, to_json
from shards.pace import no_rest
from shards.search_context import SearchContext
from shards.stages import Retriever, Servable

GOLDEN_FILE = "golden.npz"

Columns = Mapping[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """G requests and what must come back: items best first and, by column, their scores.

    `candidates` are what a scorer is asked about, and None for a retriever. `scores[g]` maps
    "score", or a task, to float32 [K] aligned with `item_ids[g]`; every request has the same columns.
    """

    contexts: tuple[SearchContext, ...]
    candidates: tuple[Candidates, ...] | None = None
    item_ids: tuple[tuple[str, ...], ...]
    scores: tuple[Columns, ...]

    def __post_init__(self) -> None:
        count = len(self.contexts)
        if len(self.item_ids) != count or len(self.scores) != count:
            raise ValueError("contexts, item_ids and scores must have one length")
        if self.candidates is not None and len(self.candidates) != count:
            raise ValueError("candidates must be as many as contexts")
        for g, (items, columns) in enumerate(zip(self.item_ids, self.scores, strict=True)):
            if SCORE not in columns:
                raise ValueError(f"request {g} has no column {SCORE!r}")
            if any(column.shape != (len(items),) for column in columns.values()):
                raise ValueError(f"scores of request {g} do not fit its {len(items)} items")


def golden_of(
    contexts: Sequence[SearchContext],
    answers: Sequence[Candidates],
    candidates: Sequence[Candidates] | None = None,
) -> Golden:
    """Return the golden that says `contexts` (about `candidates`) must be answered by `answers`."""
    return Golden(
        contexts=tuple(contexts),
        candidates=None if candidates is None else tuple(candidates),
        item_ids=tuple(answer.item_ids for answer in answers),
        scores=tuple(answer.columns for answer in answers),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """The part of the file that is not numbers."""

    contexts: tuple[SearchContext, ...]
    item_ids: tuple[tuple[str, ...], ...]
    candidate_ids: tuple[tuple[str, ...], ...] | None
    score_names: tuple[str, ...]
    candidate_names: tuple[str, ...]


def write_golden(path: Path, golden: Golden) -> None:
    """Write golden.npz; ValueError where the columns differ from request to request."""
    asked = None if golden.candidates is None else [c.columns for c in golden.candidates]
    document = _Document(
        contexts=golden.contexts,
        item_ids=golden.item_ids,
        candidate_ids=None if golden.candidates is None else tuple(c.item_ids for c in golden.candidates),
        score_names=_names(golden.scores),
        candidate_names=_names(asked or ()),
    )
    arrays: dict[str, Any] = {"document": np.frombuffer(render(to_json(document)), dtype=np.uint8)}
    arrays |= _flat("score", document.score_names, golden.scores)
    arrays |= _flat("candidate", document.candidate_names, asked or ())
    np.savez(path, **arrays)


def read_golden(path: Path) -> Golden:
    """Return the golden at `path`; CorruptBundle names the file where it cannot be read."""
    try:
        # Numpy leaves a file that it opens itself open where it is no zip file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _golden(arrays)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptBundle(path.name, f"cannot be read: {error}") from error


def replay(
    servable: Servable, golden: Golden, rtol: float, atol: float, *, rest: Callable[[], None] = no_rest
) -> None:
    """Ask `servable` every golden request and compare with what training saw; `rest` between them.

    Items are compared by id, so that ties may change places, even at the end of a retriever's list.
    Raises MismatchedBundle naming the request, the item, the column and by how much it differs.
    """
    for g, context in enumerate(golden.contexts):
        expected = Candidates(item_ids=golden.item_ids[g], columns=golden.scores[g])
        if golden.candidates is None:
            answer = _retrieve(servable, context, len(expected))
        else:
            answer = _score(servable, context, golden.candidates[g])
        comparison = _Comparison(
            request=f"request {g} of {len(golden.contexts)} ({context.query!r})", rtol=rtol, atol=atol
        )
        comparison.check(answer, expected, ties_may_drop=golden.candidates is None)
        rest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """One answer against what is expected of it."""

    request: str
    rtol: float
    atol: float

    def check(self, answer: Candidates, expected: Candidates, *, ties_may_drop: bool) -> None:
        if len(answer) != len(expected):
            raise self._mismatch(f"gave {len(answer)} items, not {len(expected)}")
        for name in expected.columns:
            if name not in answer.columns:
                raise self._mismatch(f"gave no column {name!r}")
        last = answer.columns[SCORE][-1] if len(answer) else np.float32(np.nan)
        positions = {item: k for k, item in enumerate(answer.item_ids)}
        for k, item in enumerate(expected.item_ids):
            if item in positions:
                self._check_item(item, answer, positions[item], expected, k)
            elif not (ties_may_drop and self._close(last, expected.columns[SCORE][k])):
                raise self._mismatch(f"did not give item {item!r}, expected at place {k + 1}")
        # By place: an item that ought not to be there, or a list out of order, shows here.
        for k, (got, want) in enumerate(zip(answer.columns[SCORE], expected.columns[SCORE], strict=True)):
            self._check_value(f"score at place {k + 1}", got, want)

    def _check_item(self, item: str, answer: Candidates, at: int, expected: Candidates, k: int) -> None:
        for name, column in expected.columns.items():
            self._check_value(f"{name!r} of item {item!r}", answer.columns[name][at], column[k])

    def _check_value(self, what: str, got: np.float32, want: np.float32) -> None:
        if not self._close(got, want):
            raise self._mismatch(f"{what} is {got:.6g}, not {want:.6g}: off by {abs(got - want):.3g}")

    def _close(self, got: np.float32, want: np.float32) -> bool:
        a, b = float(got), float(want)  # np.isclose takes 20 µs for two numbers.
        both_nan = math.isnan(a) and math.isnan(b)
        return a == b or both_nan or abs(a - b) <= self.atol + self.rtol * abs(b)

    def _mismatch(self, problem: str) -> MismatchedBundle:
        return MismatchedBundle(GOLDEN_FILE, f"{self.request}: the replica {problem}")


def _retrieve(servable: Servable, context: SearchContext, k: int) -> Candidates:
    if not isinstance(servable, Retriever):
        raise MismatchedBundle(GOLDEN_FILE, "is for a retriever, which this engine is not")
    return servable.retrieve(context, k, (), (), 0)


def _score(servable: Servable, context: SearchContext, candidates: Candidates) -> Candidates:
    if isinstance(servable, Retriever):
        raise MismatchedBundle(GOLDEN_FILE, "is for a scorer, which this engine is not")
    return servable.score(context, candidates, 0, {}, (), 0)


def _golden(arrays: Mapping[str, Any]) -> Golden:
    document = from_json(_Document, parse(arrays["document"].tobytes()), "document")
    candidates = None
    if document.candidate_ids is not None:
        columns = _split("candidate", document.candidate_names, document.candidate_ids, arrays)
        candidates = tuple(
            Candidates(item_ids=ids, columns=asked)
            for ids, asked in zip(document.candidate_ids, columns, strict=True)
        )
    return Golden(
        contexts=document.contexts,
        candidates=candidates,
        item_ids=document.item_ids,
        scores=_split("score", document.score_names, document.item_ids, arrays),
    )


def _names(requests: Sequence[Columns]) -> tuple[str, ...]:
    names = {tuple(sorted(columns)) for columns in requests}
    if len(names) > 1:
        raise ValueError("every golden request must have the same columns")
    return names.pop() if names else ()


def _flat(prefix: str, names: Sequence[str], requests: Sequence[Columns]) -> dict[str, Floats]:
    """Return each column of all requests end to end."""
    return {
        f"{prefix}/{name}": np.concatenate([columns[name] for columns in requests], dtype=np.float32)
        for name in names
    }


def _split(
    prefix: str, names: Sequence[str], ids: Sequence[tuple[str, ...]], arrays: Mapping[str, Any]
) -> tuple[Columns, ...]:
    """Return the columns of each request, which has as many values as ids."""
    ends = np.cumsum([len(items) for items in ids]).tolist()
    flat = {name: arrays[f"{prefix}/{name}"] for name in names}
    if any(column.shape != (ends[-1] if ends else 0,) for column in flat.values()):
        raise ValueError("a column does not fit the items")
    return tuple(
        {name: column[end - len(items) : end] for name, column in flat.items()}
        for items, end in zip(ids, ends, strict=True)
    )
