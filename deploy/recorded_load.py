"""A recorded load as a file: JSON lines or CSV of time in seconds, model and requests."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.errors import FieldViolation, InvalidInput
from shards.release import ModelVersion

Row = tuple[float, ModelVersion, float]


def read_load(path: Path, models: Sequence[ModelVersion]) -> Iterator[Row]:
    """Yield time in seconds, bundle and requests; `requests` may be left out and is then 1.

    A model is named as `model@version`, or by its name alone, which means every version of it that there
    is, in equal shares. Raises `InvalidInput` with the line that is wrong.
    """
    named: dict[str, list[ModelVersion]] = {}
    for model in models:
        named.setdefault(model.model, []).append(model)
        named.setdefault(str(model), []).append(model)
    with path.open(newline="") as lines:
        rows = csv.DictReader(lines) if path.suffix == ".csv" else (json.loads(line) for line in lines)
        done = 0
        try:
            for row in rows:
                yield from _read(row, named)
                done += 1
        except (ValueError, KeyError, TypeError) as error:
            wrong = FieldViolation(f"row {done + 1}", f"{type(error).__name__}: {error}")
            raise InvalidInput(wrong) from error


def _read(row: Mapping[str, Any], named: Mapping[str, Sequence[ModelVersion]]) -> Iterator[Row]:
    bundles = named.get(str(row["model"]))
    if not bundles:
        raise ValueError(f"there is no model {row['model']!r} in the cluster")
    requests = float(row.get("requests") or 1)
    if requests < 0:
        raise ValueError("requests must not be below 0")
    for bundle in bundles:
        yield float(row["time"]), bundle, requests / len(bundles)
