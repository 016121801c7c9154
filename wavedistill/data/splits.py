"""Which recordings are for training, for validation and for testing: by a hash of their sentences.

The same sentence always lands in the same split, whoever speaks it and whatever the punctuation, so that nothing held
out has been trained on; and it stays there when recordings are added.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from wavedistill.errors import WavedistillError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class HeldOut:
    """The fewest recordings to hold out. The hash gives 5 % to each; where that is fewer, sentences are moved from
    training, those with the highest hash first.
    """

    valid: int = 0
    test: int = 0


def split_of(text_or_id: str) -> str:
    """ "train" (90 %), "valid" (5 %) or "test" (5 %) by a hash of the normalised text."""
    bucket = _bucket(normalize_text(text_or_id))
    if bucket < 90:
        return "train"
    return "valid" if bucket < 95 else "test"


def assign_splits(texts_or_ids: Sequence[str], held_out: HeldOut | None = None) -> list[str]:
    """``split_of`` each, but hold out at least ``held_out``.

    Where a handful of sentences leaves valid or test empty, one training sentence each is moved there (always the
    same), as long as one stays for training.

    Raises:
        WavedistillError: ``held_out`` leaves no sentence for training.
    """
    keys = [normalize_text(text) for text in texts_or_ids]
    splits = {key: split_of(key) for key in keys}
    held_out = held_out or HeldOut()
    clips = Counter(keys)
    for split, fewest in (("test", held_out.test), ("valid", held_out.valid)):
        _hold_out(splits, clips, split, fewest)
    for split in ("valid", "test"):
        training = sorted((key for key, given in splits.items() if given == "train"), key=_hash)
        if split not in splits.values() and len(training) > 1:
            splits[training[-1]] = split
    return [splits[key] for key in keys]


def normalize_text(text: str) -> str:
    """Letters and digits only, case folded (Unicode NFKC); the text itself where it has neither."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isalnum()) or text


def _hold_out(splits: dict[str, str], clips: Counter[str], split: str, fewest: int) -> None:
    """Move whole sentences from training to ``split`` until it has ``fewest`` clips.

    By bucket and then by hash, as ``split_of`` does: when recordings are added, a sentence may go back to training, but
    none that has been trained on is ever moved here.
    """
    held = sum(clips[key] for key, given in splits.items() if given == split)
    training = sorted((key for key, given in splits.items() if given == "train"), key=lambda k: (_bucket(k), _hash(k)))
    while held < fewest:
        if len(training) < 2:
            raise WavedistillError(
                f"{fewest} recordings cannot be held out for {split}: of {clips.total()} recordings of {len(clips)} "
                "sentences none would be left for training; ask for fewer, or record more"
            )
        key = training.pop()
        splits[key] = split
        held += clips[key]


def _bucket(key: str) -> int:
    return _hash(key) % 100


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big")
