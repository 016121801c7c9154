"""Synthetic speech at 24 kHz: an open text-to-speech program says sentences that are written here.

PyPI ``hibari-tts`` (Apache License 2.0) brings one English voice inside its wheel, a small network distilled from
Kokoro-82M. The same voice played faster and slower gives two more, whose pitch and vocal tract are others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

from wavedistill.audio.io import resample, save_audio
from wavedistill.audio.tts import SAMPLE_RATE, TextToSpeech
from wavedistill.data.prepare import Recording

VOICES = {"heart": 1.0, "heart_high": 1.15, "heart_low": 0.87}
"""Speaker -> how much faster its samples are played than they were made; the words come as fast as without."""
_SUBJECTS = """\
the old ferry|a tired messenger|our youngest cousin|the night train|nobody in the village|her favourite teacher|\
a small grey bird|the new engineer|every second visitor|that broken clock|the harbour pilot|my neighbour's goat|\
the third witness|a yellow tractor|the whole orchestra|his quiet sister|the last customer|one of the judges|\
the shoemaker|a patient fisherman|the weather report|an unusual letter|the boy with the drum|their oldest apple tree|\
the zookeeper|a voice on the radio|the ship's cook|your best friend|the cheerful plumber|\
a bus full of tourists""".split("|")
_DEEDS = """\
crossed the bridge|stopped without a warning|sang the second verse|waited beside the fountain|forgot the way home|\
kept seven keys in a jar|measured the height of the tower|whispered something strange|sold fresh oranges and figs|\
climbed over the garden wall|chose the wrong direction|asked for a cup of tea|painted the fence bright green|\
vanished behind the chapel|counted to a hundred and five|wrote the address on a scrap of paper|\
dropped a heavy box of nails|laughed about the joke again|repaired the roof of the barn|\
followed the river to the sea|bought six pairs of socks|refused to answer the question|\
pulled the rope with both hands|heard thunder over the hills|moved to a house by the beach|\
carried the chairs upstairs|opened the envelope very slowly|found a silver coin|put out the fire|\
watched the snow fall""".split("|")
_TIMES = """\
before the shops closed|at half past nine|when the fog was thick|during the long winter|on Thursday evening|\
after the third attempt|while the children slept|just as the music began|in the middle of July|without any good reason|\
as usual|for the first time|under a pale moon|in spite of the rain|with great pleasure|early in the morning|\
twice in one week|a few years ago|because the road was closed|although it was forbidden""".split("|")
_FRAMES = (
    "{Subject} {deed} {time}.",
    "{Time}, {subject} {deed}.",
    "{Subject} {deed}, and {subject2} {deed2}.",
    "Did you know that {subject} {deed}?",
    "{Subject}, which surprised us all, {deed} {time}.",
    "Why, {time}, {subject} {deed}, they could not say.",
    "They say {subject} {deed}; I think {subject2} {deed2}.",
    "{Subject} {deed}!",
)


def sentences(count: int) -> list[str]:
    """``count`` different English sentences, always the same; the first ones do not change with the count."""
    generator = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < count:
        subject, subject2 = generator.sample(_SUBJECTS, 2)
        deed, deed2 = generator.sample(_DEEDS, 2)
        time = generator.choice(_TIMES)
        words = {"subject": subject, "subject2": subject2, "deed": deed, "deed2": deed2, "time": time}
        words |= {"Subject": _capital(subject), "Time": _capital(time)}
        found[generator.choice(_FRAMES).format(**words)] = None
    return list(found)


def render(folder: Path, count: int, progress: Callable[[Iterable], Iterable] = iter) -> list[Recording]:
    """``count`` sentences spoken by each of `VOICES` in turn, one wav of 24 kHz each; those that are there are kept."""
    tasks = [(number, text, list(VOICES)[number % len(VOICES)]) for number, text in enumerate(sentences(count))]
    recordings = [
        Recording(f"{voice}_{number:04}", folder / f"{voice}_{number:04}.wav", voice, text)
        for number, text, voice in tasks
    ]
    missing = [recording for recording in recordings if not recording.source.is_file()]
    if not missing:
        return recordings
    program = TextToSpeech()
    for recording in progress(missing):
        faster = VOICES[recording.speaker]
        audio = program(recording.text, speed=1.0 / faster)
        save_audio(recording.source, resample(audio, round(SAMPLE_RATE * faster), SAMPLE_RATE), SAMPLE_RATE)
    return recordings


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
