"""Text to speech by another program, for data and for showing a voice at work: PyPI ``hibari-tts``.

Apache License 2.0; it brings one English voice inside its wheel, a network of 8 MB distilled from Kokoro-82M, and runs
on onnxruntime, offline. https://pypi.org/project/hibari-tts/
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from wavedistill.errors import WavedistillError

PROGRAM = "hibari-tts"
SAMPLE_RATE = 24000
MAX_CHARACTERS = 1000


def tts_is_installed() -> bool:
    """Whether `TextToSpeech` can be used."""
    return importlib.util.find_spec("hibari") is not None


class TextToSpeech:
    """English text -> speech at `SAMPLE_RATE`. Loading takes a fraction of a second.

    Raises:
        WavedistillError: hibari-tts is not installed; says what to type.
    """

    def __init__(self) -> None:
        try:
            from hibari import Hibari
        except ImportError as error:
            raise WavedistillError(f"no module {error.name}; type: pip install {PROGRAM}") from error
        self._program = Hibari()

    def __call__(self, text: str, speed: float = 1.0, seed: int = 0) -> Tensor:
        """The text spoken, (samples,) float32 in [-1, 1].

        Args:
            text: English, up to `MAX_CHARACTERS`.
            speed: of speaking; 1 is the voice's own.
            seed: of what is drawn at random in it.

        Raises:
            WavedistillError: nothing to say, or too much.
        """
        text = text.strip()
        if not any(character.isalnum() for character in text):
            raise WavedistillError("there is no text to speak: give at least one word.")
        if len(text) > MAX_CHARACTERS:
            raise WavedistillError(
                f"the text has {len(text)} characters; at most {MAX_CHARACTERS} are spoken at once: cut it."
            )
        return torch.from_numpy(self._program(text, speed=speed, seed=seed))
