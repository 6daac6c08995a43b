import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.bundle import Bundle, open_bundle, write_bundle
from shards.errors import BundleError, CorruptBundle, MismatchedBundle
from shards.feature_kinds import Category, Tokens
from shards.features import FeatureSpec
from shards.json_codec import parse, render
from shards.manifest import (
    FileDigest,
    Manifest,
    ProgramSpec,
    TensorSpec,
    TrainingRange,
    parse_manifest,
    render_manifest,
)
from shards.release import ModelVersion, Stage
from shards.tokenizer import Tokenizer

MANIFEST = Manifest(
    name="two-tower",
    version="2024-01-02.1",
    stage=Stage.RETRIEVAL,
    engine="two_tower",
    sizes={"items": 3, "embedding": 64},
    programs={
        "query_tower": ProgramSpec(
            file="query_tower.pt2",
            inputs=(TensorSpec(name="query_tokens", dtype="int64", shape=(None, 8)),),
            outputs=("vector",),
        )
    },
    params={"nprobe": 4, "nested": {"key": ["a", None, 1.5]}},
    metrics={"recall@10": 0.5},
    training_range=TrainingRange(start_ms=1, end_ms=2),
)
SPEC = FeatureSpec(
    features=(
        Tokens(name="query_tokens", source="query", max_len=8),
        Category(name="country", source="user.country", vocabulary=("FR", "GB")),
    )
)
TOKENIZER = Tokenizer.train(["red mug", "blue bag"], vocab_size=40)
FILES = ("features.json", "index.lexical/meta.json", "manifest.json", "query_tower.pt2", "tokenizer.json")


def fill(folder: Path) -> None:
    (folder / "features.json").write_bytes(SPEC.to_bytes())
    TOKENIZER.save(folder / "tokenizer.json")
    (folder / "query_tower.pt2").write_bytes(bytes(range(256)))
    (folder / "index.lexical").mkdir()
    (folder / "index.lexical" / "meta.json").write_text("{}")


def fill_nothing(folder: Path) -> None:
    assert not list(folder.iterdir())


def refused(path: Path, file: str, problem: str = ".", *, kind: type[BundleError] = CorruptBundle) -> None:
    with pytest.raises(kind, match=problem) as caught:
        open_bundle(path)
    assert caught.value.file == file
    assert str(caught.value).startswith(f"{file}: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("models"), MANIFEST, fill)


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def test_opens_what_was_written(whole: Path) -> None:
    bundle = open_bundle(whole, ModelVersion("two-tower", "2024-01-02.1"))
    assert whole.parts[-2:] == ("two-tower", "2024-01-02.1")
    assert bundle.spec == SPEC
    assert bundle.tokenizer is not None
    assert bundle.tokenizer.sha256 == TOKENIZER.sha256
    assert bundle.manifest.spec_hash == SPEC.hash(TOKENIZER)
    assert sorted(bundle.manifest.files) == sorted(set(FILES) - {"manifest.json"})
    assert replace(bundle.manifest, files={}, spec_hash="") == MANIFEST
    assert bundle.file("query_tower.pt2").read_bytes() == bytes(range(256))
    assert bundle.program("query_tower").outputs == ("vector",)


def test_what_a_bundle_lacks_is_named(whole: Path) -> None:
    bundle = open_bundle(whole)
    with pytest.raises(MismatchedBundle, match=r"index\.faiss: is not in the bundle"):
        bundle.file("index.faiss")
    with pytest.raises(MismatchedBundle, match="has no program 'scorer'"):
        bundle.program("scorer")


def test_a_bundle_may_do_without_features(tmp_path: Path) -> None:
    table = replace(MANIFEST, engine="table", programs={})
    written = write_bundle(tmp_path, table, fill_nothing)
    assert open_bundle(written) == Bundle(path=written, manifest=table)


def test_another_version_is_a_mismatch(whole: Path) -> None:
    with pytest.raises(
        MismatchedBundle, match=r"describes two-tower@2024-01-02\.1, not two-tower@2"
    ) as caught:
        open_bundle(whole, ModelVersion("two-tower", "2"))
    assert caught.value.file == "manifest.json"


@given(st.sampled_from(FILES), st.data())
def test_one_flipped_byte_is_refused(whole: Path, file: str, data: st.DataObject) -> None:
    content = (whole / file).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    altered = bytearray(content)
    altered[at] ^= data.draw(st.integers(1, 255))
    with swapped(whole / file, bytes(altered)):
        refused(whole, file)


@given(st.sampled_from(FILES), st.data())
def test_a_truncated_or_longer_file_is_refused(whole: Path, file: str, data: st.DataObject) -> None:
    content = (whole / file).read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    with swapped(whole / file, content[:cut]):
        refused(whole, file)
    with swapped(whole / file, content + data.draw(st.binary(min_size=1, max_size=9))):
        refused(whole, file)


@pytest.mark.parametrize("file", FILES)
def test_a_deleted_file_is_refused(path: Path, file: str) -> None:
    (path / file).unlink()
    refused(path, file, "is missing" if file != "manifest.json" else "cannot be read: No such file")


@pytest.mark.parametrize("file", ["extra", ".hidden", "index.lexical/more", "new/folder/file"])
def test_an_added_file_is_refused(path: Path, file: str) -> None:
    (path / file).parent.mkdir(parents=True, exist_ok=True)
    (path / file).write_bytes(b"")
    refused(path, file, "is not listed")


@pytest.mark.parametrize("file", ["query_tower.pt2", "extra"])
def test_links_and_pipes_are_refused(path: Path, file: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(bytes(range(256)))
    (path / file).unlink(missing_ok=True)
    (path / file).symlink_to(tmp_path / "outside")
    refused(path, file, "is not a plain file")
    (path / file).unlink()
    os.mkfifo(path / file)
    refused(path, file, "is not a plain file")


def test_no_folder_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "manifest.json", "cannot be read")


def rewrite(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change the manifest as one would who also knows how to sign it."""
    document = parse((path / "manifest.json").read_bytes())
    del document["checksum"]
    change(document)
    document["checksum"] = sha256(render(document)).hexdigest()
    (path / "manifest.json").write_bytes(render(document))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("format_version", 2, "format_version 2 is not 1"),
        ("stage", "magic", r"manifest\.stage: 'magic' is not a valid Stage"),
        ("name", "../escape", "name '../escape'"),
        ("version", "", "version ''"),
        ("sizes", {"items": "3"}, r"manifest\.sizes\['items'\] is not a int"),
        ("tasks", "click", r"manifest\.tasks is not a list"),
        ("surprise", 1, "unknown field 'surprise'"),
    ],
)
def test_a_manifest_must_fit_the_schema(path: Path, field: str, value: object, problem: str) -> None:
    rewrite(path, lambda document: document.update({field: value}))
    refused(path, "manifest.json", problem)


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "a/../../b",
        "",
        ".",
        "a//b",
        "a\\b",
        "manifest.json",
        "signature.json",
        "a/",
        "x\0y",
    ],
)
def test_names_that_leave_the_bundle_are_refused(path: Path, name: str) -> None:
    digest = {"sha256": "0", "size_bytes": 0}
    rewrite(path, lambda document: document.update(files={name: digest}))
    refused(path, "manifest.json", "file name")
    with pytest.raises(ValueError, match="file name"):
        replace(MANIFEST, files={name: FileDigest(sha256="0", size_bytes=0)})
    with pytest.raises(ValueError, match="file name"):
        ProgramSpec(file=name, inputs=(), outputs=())


def test_features_of_another_training_are_a_mismatch(path: Path) -> None:
    rewrite(path, lambda document: document.update(spec_hash="0" * 64))
    refused(path, "features.json", "is not the FeatureSpec", kind=MismatchedBundle)


def test_programs_must_be_there(path: Path, tmp_path: Path) -> None:
    def forget(document: dict[str, object]) -> None:
        program = {"file": "other.pt2", "inputs": [], "outputs": []}
        document["programs"] = {"query_tower": program}

    rewrite(path, forget)
    refused(path, "manifest.json", r"query_tower' is in other\.pt2", kind=MismatchedBundle)
    with pytest.raises(MismatchedBundle, match=r"query_tower\.pt2, which is not here"):
        write_bundle(tmp_path / "models", MANIFEST, fill_nothing)
    assert left_in(tmp_path / "models") == []


def test_manifests_survive_json() -> None:
    signed = MANIFEST.with_files({"a/b": FileDigest(sha256="0", size_bytes=3)}, "hash")
    assert parse_manifest(render_manifest(signed)) == signed
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_manifest(replace(MANIFEST, metrics={"loss": float("nan")}))


def test_a_version_is_written_once(tmp_path: Path) -> None:
    written = write_bundle(tmp_path, MANIFEST, fill)
    before = (written / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match="never changes"):
        write_bundle(tmp_path, MANIFEST, fill_nothing)
    assert (written / "manifest.json").read_bytes() == before


def test_of_many_writers_one_wins(tmp_path: Path) -> None:
    together = threading.Barrier(6)
    wins: list[int] = []
    losses: list[int] = []

    def write(number: int) -> None:
        def fill_together(folder: Path) -> None:
            (folder / "number").write_text(str(number))
            together.wait()

        try:
            write_bundle(tmp_path, replace(MANIFEST, programs={}), fill_together)
            wins.append(number)
        except FileExistsError:
            losses.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(wins), len(losses)) == (1, 5)
    bundle = open_bundle(tmp_path / "two-tower" / "2024-01-02.1")
    assert bundle.file("number").read_text() == str(wins[0])
    assert [child.name for child in tmp_path.iterdir()] == ["two-tower"]


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_failed_fill_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise failure

    with pytest.raises(type(failure)):
        write_bundle(tmp_path, MANIFEST, fail)
    assert left_in(tmp_path) == []


def test_a_link_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match="link: is not a plain file"):
        write_bundle(tmp_path, MANIFEST, lambda folder: (folder / "link").symlink_to("/etc/hostname"))
    assert left_in(tmp_path) == []


WRITE_A_MEGABYTE = """
import pathlib, resource, sys
from shards.bundle import write_bundle
from shards.manifest import Manifest
from shards.release import Stage

root, limit = pathlib.Path(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
manifest = Manifest(name="big", version="1", stage=Stage.RETRIEVAL, engine="table")
try:
    write_bundle(root, manifest, lambda folder: (folder / "index").write_bytes(bytes(1_000_000)) and None)
except OSError as error:
    print(error.strerror)
"""


def write_a_megabyte(root: Path, *, limit_bytes: int = 0) -> str:
    command = [sys.executable, "-c", WRITE_A_MEGABYTE, str(root), str(limit_bytes)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    assert write_a_megabyte(small_disk) == "No space left on device"
    assert left_in(small_disk) == []


def test_a_file_too_large_leaves_nothing(tmp_path: Path) -> None:
    assert write_a_megabyte(tmp_path, limit_bytes=100_000) == "File too large"
    assert left_in(tmp_path) == []
    assert write_a_megabyte(tmp_path) == ""
    assert open_bundle(tmp_path / "big" / "1").file("index").stat().st_size == 1_000_000


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


@contextmanager
def swapped(path: Path, content: bytes) -> Iterator[None]:
    """Put other bytes into a file for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
