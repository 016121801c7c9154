"""Splits: by sentence, 90 / 5 / 5 %, always the same, and at least as many held out as were asked for."""

from __future__ import annotations

from collections import Counter

import pytest

from wavedistill.data.splits import HeldOut, assign_splits, normalize_text, split_of
from wavedistill.errors import WavedistillError


def test_the_same_sentence_has_the_same_split():
    for text in ("Please enter your PIN, then press pound.", "Корреспондент американской газеты"):
        variants = [text, text.upper(), text.replace(",", ""), f"  {text}!! ", text.replace(" ", "  ")]
        assert len({split_of(v) for v in variants}) == 1


def test_splits_are_90_5_5_and_stay_what_they_are():
    counts = Counter(split_of(f"sentence number {i}") for i in range(20_000))
    assert [round(counts[s] / 200, 0) for s in ("train", "valid", "test")] == [90, 5, 5]
    assert [split_of(t) for t in ("Agent logged in.", "Activated.", "Goodbye", "")] == [
        "test",
        "train",
        "train",
        "train",
    ]


def test_normalising_keeps_letters_and_digits_of_any_script():
    assert normalize_text("Où est l'Élan? №5 Ёж") == "oùestlélanno5ёж"
    assert normalize_text("?!") == "?!"


def test_small_corpora_have_held_out_recordings_too():
    for count in range(3, 30):
        texts = [f"clip_{i}" for i in range(count)]
        splits = assign_splits(texts)
        assert set(splits) == {"train", "valid", "test"}
        assert assign_splits(texts[::-1]) == splits[::-1]
    assert assign_splits(["one"]) == ["train"]
    assert len(set(assign_splits(["Same.", "same", "SAME!"]))) == 1


def test_large_corpora_follow_the_hash_alone():
    texts = [f"sentence {i}" for i in range(500)]
    assert assign_splits(texts) == [split_of(t) for t in texts]


@pytest.mark.parametrize("valid, test", [(0, 12), (12, 0), (7, 9)])
def test_as_many_are_held_out_as_asked_for_and_what_was_held_out_stays(valid, test):
    texts = [f"clip_{i}" for i in range(40)]
    before = assign_splits(texts)
    splits = assign_splits(texts, HeldOut(valid, test))
    counts = Counter(splits)
    assert (counts["valid"], counts["test"]) == (max(valid, before.count("valid")), max(test, before.count("test")))
    assert all(now == was or was == "train" for now, was in zip(splits, before, strict=True))
    assert assign_splits(texts[::-1], HeldOut(valid, test)) == splits[::-1]


def test_sentences_are_held_out_whole():
    texts = [f"sentence {i // 4}" for i in range(80)]  # four readings of each
    splits = assign_splits(texts, HeldOut(test=10))
    assert all(len(set(splits[i : i + 4])) == 1 for i in range(0, 80, 4))
    assert 10 <= splits.count("test") <= 13 or assign_splits(texts).count("test") >= 10


def test_new_recordings_move_nothing_from_training_into_the_held_out():
    texts = [f"clip_{i}" for i in range(120)]
    fewer = assign_splits(texts[:60], HeldOut(8, 15))
    more = assign_splits(texts, HeldOut(8, 15))[:60]
    assert not [pair for pair in zip(fewer, more, strict=True) if pair[0] == "train" and pair[1] != "train"]
    assert "train" in [now for was, now in zip(fewer, more, strict=True) if was == "test"]


def test_large_enough_corpora_are_split_as_without_asking():
    texts = [f"sentence {i}" for i in range(500)]
    assert assign_splits(texts, HeldOut(10, 10)) == assign_splits(texts)


def test_something_stays_for_training():
    with pytest.raises(WavedistillError, match="40 recordings cannot be held out for test: of 40 recordings of 20"):
        assign_splits([f"clip {i // 2}" for i in range(40)], HeldOut(test=40))
