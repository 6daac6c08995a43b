"""The gate's model as routers open it: whole, of this version, and answering as it did in training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.candidates import EMPTY, Candidates
from shards.errors import BundleError, CorruptBundle, MismatchedBundle
from shards.gate_features import AFTER, BEFORE, after_features, facts_of
from shards.gate_model import GATE_FILE, open_gate
from shards.release import ModelVersion, Stage
from shards.search_context import History, SearchContext, UserState
from tests.shards.gates import VERSION, gate_model, golden_contexts, knowledge, scorer, write_gate

DAY_MS = 86_400_000
USER = UserState(user_id="u1", history=History(("c1", "m2", "c1"), ("buy",) * 3, (1, 2, DAY_MS)))


def searched(query: str, user: UserState = USER) -> SearchContext:
    return SearchContext(query=query, user=user, now_ms=2 * DAY_MS)


def before(query: str, user: UserState = USER) -> dict[str, float]:
    facts = facts_of(knowledge(), searched(query, user))
    return dict(zip(BEFORE, facts.features.tolist(), strict=True))


def test_features_tell_what_the_log_the_titles_and_the_history_say() -> None:
    found = before("Red  MUG")
    assert found["words"] == 2
    assert found["query_takes"] == pytest.approx(np.log1p(8))
    assert found["query_top_share"] == pytest.approx(0.9)
    assert (found["unknown_words"], found["has_digit"], found["top_item_taken"]) == (0, 0, 0)
    assert found["history_items"] == pytest.approx(np.log1p(2))
    assert found["history_idle_days"] == pytest.approx(np.log1p(1))
    assert found["idf_max"] == pytest.approx(np.log1p(4)), "red stands in one of four titles"
    assert found["idf_min"] == pytest.approx(np.log1p(2)), "mug stands in two"


def test_a_word_that_no_title_has_weighs_most_and_is_unknown() -> None:
    found = before("rde mug")
    assert found["unknown_words"] == pytest.approx(0.5)
    assert found["idf_max"] == pytest.approx(np.log1p(8))
    assert (found["query_takes"], found["query_top_share"]) == (0, 0)


def test_what_the_user_took_matches_by_the_weight_of_its_words() -> None:
    whole, part, other = before("christmas candle holder"), before("candle"), before("heart")
    assert whole["title_cover"] == pytest.approx(1)
    assert part["title_cover"] == pytest.approx(1 / 3)
    assert part["history_cover"] == pytest.approx(1)
    assert part["history_matches"] == pytest.approx(np.log1p(1))
    assert (other["title_cover"], other["history_matches"], other["history_cover"]) == (0, 0, 0)
    assert before("candle heart")["title_cover"] == 0, "no title says both"
    assert before("candle", UserState())["title_cover"] == 0


@pytest.mark.parametrize("query", ["", "  ", "?!", "\ud800", "x" * 10_000, "mug " * 500])
@pytest.mark.parametrize("user", [UserState(), USER])
def test_any_query_has_finite_features(query: str, user: UserState) -> None:
    facts = facts_of(knowledge(), searched(query, user))
    assert np.isfinite(after_features(facts, EMPTY)).all()


def test_lexical_scores_are_told_as_shares_of_the_best() -> None:
    facts = facts_of(knowledge(), searched("red mug"))
    scores = np.array([4, 2, 1, 1, 1], np.float32)
    lexical = Candidates(item_ids=("m1", "m2", "c1", "x", "y"), columns={"score": scores})
    found = dict(zip(AFTER, after_features(facts, lexical).tolist(), strict=True))
    assert found["lexical_found"] == pytest.approx(np.log1p(5))
    assert (found["lexical_second"], found["lexical_fifth"], found["lexical_tenth"]) == (0.5, 0.25, 0)
    assert found["lexical_first_is_top_item"] == 1
    assert found["lexical_taken_rank"] == pytest.approx(0.5), "m2, which the user took, comes second"


def test_scores_that_are_no_numbers_say_nothing() -> None:
    facts = facts_of(knowledge(), searched("red mug"))
    broken = Candidates(item_ids=("m1",), columns={"score": np.array([np.nan], np.float32)})
    assert not after_features(facts, broken)[len(BEFORE) :].any()


def test_a_bundle_opens_as_what_was_written(tmp_path: Path) -> None:
    path = write_gate(tmp_path)
    opened, written = open_gate(path, VERSION), gate_model()
    for context in golden_contexts():
        facts = opened.facts(context)
        assert opened.expected_gain(facts, None) == written.expected_gain(written.facts(context), None)
    assert opened.params.channel == "lexical"


def test_one_altered_byte_is_refused(tmp_path: Path) -> None:
    path = write_gate(tmp_path)
    data = bytearray((path / GATE_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (path / GATE_FILE).write_bytes(bytes(data))
    with pytest.raises(CorruptBundle, match=r"gate\.npz: has been altered"):
        open_gate(path, VERSION)


def test_a_gate_that_answers_otherwise_than_its_goldens_is_refused(tmp_path: Path) -> None:
    good, other = write_gate(tmp_path / "a"), write_gate(tmp_path / "b", gate_model(sign=-1.0))
    manifest = (other / "manifest.json").read_bytes()
    swapped = tmp_path / "c" / VERSION.model / VERSION.version
    swapped.mkdir(parents=True)
    for path in good.iterdir():
        (swapped / path.name).write_bytes(path.read_bytes())
    (swapped / GATE_FILE).write_bytes((other / GATE_FILE).read_bytes())
    (swapped / "manifest.json").write_bytes(manifest)
    with pytest.raises(BundleError):
        open_gate(swapped, VERSION)


@pytest.mark.parametrize("expect", [ModelVersion("gifts-gate", "2"), ModelVersion("other", "1")])
def test_another_version_is_refused(tmp_path: Path, expect: ModelVersion) -> None:
    with pytest.raises(MismatchedBundle):
        open_gate(write_gate(tmp_path), expect)


def test_what_is_no_gate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchedBundle, match="no gate"):
        open_gate(write_gate(tmp_path, stage=Stage.RANKING), VERSION)


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle):
        open_gate(tmp_path / "nothing", VERSION)


def test_quantiles_turn_probabilities_into_shares_and_back() -> None:
    held = scorer(BEFORE, "words")
    quantiles = np.array([0.0, 0.1, 0.1, 0.1, 0.5], np.float32)
    held = replace(held, quantiles=quantiles)
    assert held.quantile(0.05) == pytest.approx(0.125)
    assert held.quantile(0.9) == 1.0
    assert held.at_quantile(0.875) == pytest.approx(0.3)
    assert np.isnan(held.quantile(float("nan")))


@pytest.mark.parametrize(
    "broken",
    [
        {"quantiles": np.array([0.5, 0.1], np.float32)},
        {"scale_F": np.zeros(len(BEFORE), np.float32)},
        {"out_D": np.array([np.nan, 1.0], np.float32)},
        {"mean_F": np.zeros(3, np.float32)},
    ],
)
def test_a_scorer_that_cannot_work_is_refused(broken: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"must|shape"):
        replace(scorer(BEFORE, "words"), **broken)
