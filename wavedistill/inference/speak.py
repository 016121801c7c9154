"""Text to a waveform of ours: another program reads the text aloud, a voice makes the waveform from its mel."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from wavedistill.audio.io import resample
from wavedistill.audio.tts import SAMPLE_RATE, TextToSpeech
from wavedistill.inference.vocoder import Vocoder


@dataclass(frozen=True)
class SpokenText:
    """What `speak` made, and how long each part took.

    Attributes:
        audio: (samples,) by the voice, at ``sample_rate`` Hz.
        sample_rate: Hz.
        source: (samples,) as the text-to-speech program spoke it, at its own 24 kHz.
        tts_seconds: text -> ``source``, by that program.
        mel_seconds: ``source`` -> log-mel spectrogram in the voice's settings.
        voice_seconds: mel -> ``audio``, by the voice.
    """

    audio: Tensor
    sample_rate: int
    source: Tensor
    tts_seconds: float
    mel_seconds: float
    voice_seconds: float


def speak(text: str, vocoder: Vocoder, tts: TextToSpeech, *, seed: int = 0, **options: object) -> SpokenText:
    """Speak English text with a voice of ours.

    Words, timing and pitch are the text-to-speech program's; the waveform, every sample of it, is the voice's, which is
    given nothing but the mel.

    Args:
        options: more arguments of the vocoder's call, as temperature.

    Raises:
        WavedistillError: nothing to say, or too much (`wavedistill.audio.tts.MAX_CHARACTERS`).
    """
    began = time.perf_counter()
    source = tts(text)
    spoken = time.perf_counter()
    mel = vocoder.mel(resample(source, SAMPLE_RATE, vocoder.sample_rate))
    heard = time.perf_counter()
    audio = vocoder(mel, seed=seed, **options)
    made = time.perf_counter()
    return SpokenText(audio, vocoder.sample_rate, source, spoken - began, heard - spoken, made - heard)
