"""Whether two recordings are of one speaker: cosine of speaker embeddings."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from wavedistill.metrics.packages import need_package
from wavedistill.metrics.waveforms import RATE, Waveform, at_16khz


def speaker_cosine(reference: Waveform, candidate: Waveform, sample_rate: int) -> float:
    """Cosine of the GE2E speaker embeddings: 0 to 1 for the same voice.

    Resemblyzer's encoder; the package carries its weights. NaN where one of both has no speech by WebRTC's voice
    activity detector.

    Args:
        reference: waveform (samples,) in [-1, 1).
        candidate: as the reference.
        sample_rate: Hz.

    References:
        Generalized End-to-End Loss for Speaker Verification (Wan et al., 2018), https://arxiv.org/abs/1710.10467
    """
    first, second = (_embedding(x.astype(np.float32).tobytes()) for x in at_16khz(reference, candidate, sample_rate))
    return math.nan if first is None or second is None else float(first @ second)


@lru_cache(maxsize=4)  # one reference meets many candidates
def _embedding(audio: bytes) -> np.ndarray | None:
    """(samples,) float32 at 16 kHz, as bytes -> unit vector (256,); None without speech."""
    package = need_package("resemblyzer")
    signal = np.clip(np.frombuffer(audio, np.float32), -1.0, 1.0)
    if len(signal) < RATE // 10 or not signal.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        speech = package.preprocess_wav(signal)
    return _encoder().embed_utterance(speech) if len(speech) else None


@lru_cache(maxsize=1)
def _encoder() -> Any:
    return need_package("resemblyzer").VoiceEncoder("cpu", verbose=False)
