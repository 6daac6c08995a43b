"""The record comes back as written, and a damaged one is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.shard_record import HeldBundle, ShardRecord, read_record, write_record
from shards.errors import CorruptRecord
from shards.release import ModelVersion, Stage

MODEL = ModelVersion("tower", "1")


def held(name: str, path: str) -> HeldBundle:
    return HeldBundle(model=ModelVersion(name, "1"), stage=Stage.RETRIEVAL, path=Path(path))


def test_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "shards" / "s1.json"
    record = ShardRecord(port=50123).with_bundle(held("tower", "/models/tower/1"))
    write_record(path, record)
    assert read_record(path) == record
    assert [file.name for file in path.parent.iterdir()] == ["s1.json"]


def test_terms_come_back_and_old_records_have_none(tmp_path: Path) -> None:
    path = tmp_path / "s1.json"
    cold = replace(held("tower", "/models/tower/1"), on_demand=True, pinned=True, memory_bytes=7)
    write_record(path, ShardRecord(port=1).with_bundle(cold))
    assert read_record(path).bundles == (cold,)
    measured = read_record(path).with_memory(MODEL, 9).with_memory(ModelVersion("none", "1"), 1)
    assert measured.bundles == (replace(cold, memory_bytes=9),)
    old = {"model": "tower", "version": "1", "stage": "retrieval", "path": "/models/tower/1"}
    path.write_text(json.dumps({"port": 1, "models": [old]}))
    assert read_record(path).bundles == (held("tower", "/models/tower/1"),)


def test_none_is_empty(tmp_path: Path) -> None:
    assert read_record(tmp_path / "none.json") == ShardRecord()


def test_a_bundle_is_held_once() -> None:
    record = ShardRecord().with_bundle(held("tower", "/a")).with_bundle(held("x", "/x"))
    assert record.with_bundle(held("tower", "/b")).bundles == (held("x", "/x"), held("tower", "/b"))
    assert record.with_bundle(held("tower", "/a")) == record
    assert record.without_bundle(MODEL).bundles == (held("x", "/x"),)
    assert record.without_bundle(ModelVersion("tower", "2")) == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 1}', '{"port": "x", "models": []}', "\xff"])
def test_damage_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s1.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CorruptRecord, match="shard record"):
        read_record(path)
