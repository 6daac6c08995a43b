"""`headrace eval-tasks` of films that are liked or not: even numbers are, odd ones are not."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.commands import headrace

_USERS, _FILMS, _RATED = 30, 40, 20
_QUICK = (
    "ranking_days=500",
    "ranker.training.fit.epochs=2",
    "ranker.training.fit.batch_size=4",
    "ranker.training.fit.learning_rate=0.01",
    "ranker.model.dropout=0",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The options that name a workspace with a release of the recipe, and the data that it was made from."""
    root = tmp_path_factory.mktemp("films")
    _write(root / "data" / "movielens_small")
    options = ("--workspace", str(root / "workspace"), "--data-dir", str(root / "data"))
    ran = headrace("train", "movielens_small", *options, *(word for s in _QUICK for word in ("--set", s)))
    assert ran.code == 0, ran.err
    return options


def _write(folder: Path) -> None:
    folder.mkdir(parents=True)
    films = "".join(f"{n},Film {n} ({1950 + n}),Drama\n" for n in range(_FILMS))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + films)
    draw = random.Random(0)
    lines = []
    for user in range(_USERS):
        for film in draw.sample(range(_FILMS), _RATED):
            stars = draw.choice((4.0, 5.0) if film % 2 == 0 else (1.0, 2.0))
            lines.append(f"{user},{film},{stars},{1_000_000_000 + draw.randrange(100_000_000)}\n")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(lines))


def figures_of(folders: tuple[str, ...], *arguments: str) -> Any:
    """Return what the command says, as JSON."""
    ran = headrace("eval-tasks", *folders, "--json", *arguments)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_every_task_is_beside_what_then_happened(folders: tuple[str, ...]) -> None:
    document = figures_of(folders)
    assert (document["dataset"], document["split"]) == ("movielens_small", "test")
    assert document["requests"] == _USERS * _RATED // 10
    like, rating = (document["figures"][name] for name in ("like", "rating"))
    assert like["auc"] > 0.95
    assert like["observed"] == pytest.approx(like["predicted"], abs=0.2)
    assert rating["mean_absolute_error"] < rating["absolute_error_of_mean"]
    assert sum(one["examples"] for one in like["curve"]) == like["examples"]


def test_a_sample_of_another_split(folders: tuple[str, ...]) -> None:
    document = figures_of(folders, "--split", "valid", "--limit", "7")
    assert (document["split"], document["requests"]) == ("valid", 7)


def test_the_report_is_a_table_its_figures_and_a_picture(folders: tuple[str, ...], tmp_path: Path) -> None:
    ran = headrace("eval-tasks", *folders, "--out", str(tmp_path / "report"))
    assert ran.code == 0, ran.err
    shown = (tmp_path / "report" / "tasks.txt").read_text()
    for expected in ("movielens_small, test: 60 requests", "completion", "MAE of mean"):
        assert expected in shown
    written = json.loads((tmp_path / "report" / "tasks.json").read_text())
    assert set(written["figures"]) == {"rate", "like", "rating", "completion"}
    assert (tmp_path / "report" / "tasks.png").read_bytes().startswith(b"\x89PNG")


def test_a_release_without_a_ranker_is_named(folders: tuple[str, ...], tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(folders[1], tmp_path / "workspace"))
    (path,) = workspace.glob("releases/*.json")
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "ranker"}))
    ran = headrace("eval-tasks", "--workspace", str(workspace), *folders[2:])
    assert ran.code != 0
    assert "'movielens-small' has no ranker" in str(ran.error) + ran.err
