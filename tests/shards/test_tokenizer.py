import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.tokenizer import PAD, UNKNOWN, Tokenizer
from shards.words import encode_ngrams, normalised, words

TEXTS = ["Red Café mug", "red lunch bag", "wooden heart", "RED wooden spoon"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, vocab_size=100)


def test_case_and_accents_do_not_matter(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("CAFÉ Mug", 8).tolist() == tokenizer.encode("cafe mug", 8).tolist()
    assert tokenizer.encode("red bag", 8).tolist() != tokenizer.encode("red mug", 8).tolist()


def test_pads_and_cuts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("", 3).tolist() == [PAD] * 3
    whole = tokenizer.encode("red wooden spoon", 8)
    assert whole[-1] == PAD
    assert tokenizer.encode("red wooden spoon", 2).tolist() == whole[:2].tolist()


def test_what_training_never_saw_is_unknown(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("日本", 2)[0] == UNKNOWN


def test_saving_keeps_every_id(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.open(tmp_path / "tokenizer.json")
    assert again.sha256 == tokenizer.sha256
    assert again.vocab_size == tokenizer.vocab_size
    np.testing.assert_array_equal(again.encode_batch(TEXTS, 9), tokenizer.encode_batch(TEXTS, 9))


def test_same_texts_give_the_same_file_in_another_process(tokenizer: Tokenizer) -> None:
    script = (
        f"from shards.tokenizer import Tokenizer\nprint(Tokenizer.train({TEXTS!r}, vocab_size=100).sha256)"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == tokenizer.sha256


def test_refuses_what_is_no_tokeniser() -> None:
    with pytest.raises(ValueError, match="is not a tokeniser"):
        Tokenizer("{}")


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=40), max_size=4))
def test_any_text_gives_ids_in_range(tokenizer: Tokenizer, texts: list[str]) -> None:
    ids_NL = tokenizer.encode_batch(texts, 6)
    assert ids_NL.shape == (len(texts), 6)
    assert np.all((ids_NL >= 0) & (ids_NL < tokenizer.vocab_size))
    for ids_L, text in zip(ids_NL, texts, strict=True):
        np.testing.assert_array_equal(ids_L, tokenizer.encode(text, 6))


def test_a_huge_text_is_read_only_in_part(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("red " * 1_000_000, 4).tolist() == tokenizer.encode("red red red red", 4).tolist()


def test_words_fold_case_accents_and_signs() -> None:
    assert words("  Crème-Brûlée_SET,  85123A! ") == ("creme", "brulee", "set", "85123a")
    assert normalised("Crème-Brûlée") == "creme brulee"
    assert words("\ud800 ½") == ("1", "2")


def test_ngrams_mark_where_words_start_and_end() -> None:
    ids = encode_ngrams(["bags", "bag", "a", ""], n=3, buckets=1 << 20, max_len=5)
    assert ids[0, :2].tolist() == ids[1, :2].tolist()
    assert ids[0, 2] != ids[1, 2]
    assert np.count_nonzero(ids, axis=1).tolist() == [4, 3, 1, 0]


@given(st.lists(st.text(max_size=30), max_size=3), st.integers(1, 4), st.integers(1, 50))
def test_ngrams_stay_in_their_buckets(texts: list[str], n: int, buckets: int) -> None:
    ids = encode_ngrams(texts, n=n, buckets=buckets, max_len=7)
    assert ids.shape == (len(texts), 7)
    assert np.all((ids >= 0) & (ids <= buckets))
