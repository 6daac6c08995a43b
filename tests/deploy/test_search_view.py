import dataclasses
import io

from rich.console import Console

from deploy.search_view import render
from router.client_results import Gap, Gate, Item, SearchResult, Timing

RESULT = SearchResult(
    items=(
        Item(
            item_id="84029E",
            score=0.8123,
            attributes={"title": "RED WOOLLY HOTTIE WHITE HEART", "colour": "red"},
            channels=("lexical", "two_tower"),
            scores={
                "lexical.rank": 1.0,
                "lexical.score": 9.5,
                "two_tower.rank": 12.0,
                "merge.score": 0.0301,
                "pre_rank.score": 1.25,
                "rank.score": 0.8123,
                "rank.purchase": 0.7711,
            },
        ),
        Item(
            item_id="nameless", score=0.5, attributes={}, channels=("two_tower",), scores={"merge.score": 0.5}
        ),
    ),
    gate=Gate(open=True, reason="default_open", probability=None, version="rules-1"),
    surface="gifts",
    release="7",
    complete=True,
    gaps=(),
    timings=(
        Timing(
            stage="retrieval",
            channel="lexical",
            model="gifts-lexical",
            shard_id="shard-0",
            total_ms=2.34,
            compute_ms=1.2,
            candidates=200,
        ),
        Timing(
            stage="pre_ranking",
            channel="",
            model="gifts-pre",
            shard_id="shard-1",
            total_ms=5.0,
            compute_ms=4.0,
            candidates=150,
        ),
    ),
    explanation=None,
    request_id="r",
    generation=3,
)


def text(result: SearchResult, *, explain: bool, width: int = 80) -> str:
    """Return what a terminal of this width shows."""
    console = Console(file=io.StringIO(), width=width)
    console.print(render(result, query="red hottie", user_id="13085", explain=explain))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in shown.splitlines())
    return str(shown)


def test_the_plain_view_is_short() -> None:
    shown = text(RESULT, explain=False)
    for expected in (
        "“red hottie” on gifts for 13085, release 7",
        "RED WOOLLY",
        "lexical, two_tower",
        "0.8123",
    ):
        assert expected in shown
    assert "nameless" in shown
    for hidden in ("Gate", "shard-0", "purchase", "Incomplete"):
        assert hidden not in shown


def test_explain_shows_stages_gate_and_timings() -> None:
    shown = text(RESULT, explain=True, width=100)
    for expected in (
        "84029E · colour red", "two_tower #12", "0.0301", "1.25", "purchase 0.7711",
        "Gate open: default_open", "gifts-lexical", "shard-1", "pre-ranking", "2.3",
    ):  # fmt: skip
        assert expected in shown


def test_a_narrow_terminal_still_shows_every_score() -> None:
    shown = text(RESULT, explain=True, width=60)
    for expected in ("0.0301", "1.25", "0.8123", "0.7711"):
        assert expected in shown


def test_what_is_missing_is_named() -> None:
    gap = Gap(
        stage="ranking", channel="", model="gifts-rank", reason="deadline", detail="no answer in 200 ms"
    )
    shown = text(dataclasses.replace(RESULT, complete=False, gaps=(gap,)), explain=False)
    assert "Incomplete:" in shown
    assert "ranking (gifts-rank) deadline: no answer in 200 ms" in shown


def test_no_items_is_no_error() -> None:
    assert "on gifts" in text(dataclasses.replace(RESULT, items=()), explain=True)
