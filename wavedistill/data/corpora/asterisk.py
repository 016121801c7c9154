"""Asterisk core sounds: studio prompts of five speakers in five languages, 16 kHz G.722.

Debian packages ``asterisk-core-sounds-XX-g722`` for the audio and ``asterisk-core-sounds-XX`` for the texts.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import torch
from torch import Tensor

from wavedistill.data.corpora.debian import find_below, unpacked_source
from wavedistill.data.prepare import Recording, prepare_recordings
from wavedistill.data.prepare_report import PrepareReport
from wavedistill.errors import WavedistillError

ASTERISK_LANGUAGES = ("en", "es", "fr", "it", "ru")
ASTERISK_PACKAGES = tuple(
    f"asterisk-core-sounds-{language}{kind}" for language in ASTERISK_LANGUAGES for kind in ("", "-g722")
)

# Sounds that are no speech; ru's `is` is an empty file.
_NO_SPEECH = re.compile(r"silence/.*|beep(err)?|(a|de)scending-2tone|tt-monkeys|confbridge-(join|leave)")
_NOTE = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


def prepare_asterisk(out: str | Path, source: str | Path | None = None, **options) -> PrepareReport:
    """Prepare the five Asterisk speakers into ``out``, as ``prepare_festvox_ru``."""
    folder = unpacked_source(source, ASTERISK_PACKAGES, out)
    return prepare_recordings(asterisk_recordings(folder), out, decode=decode_g722, **options)


def asterisk_recordings(folder: str | Path) -> list[Recording]:
    """The spoken prompts below ``folder``; speakers are named by language: en, es, fr, it, ru."""
    recordings = []
    for language in ASTERISK_LANGUAGES:
        texts = read_prompt_texts(
            find_below(folder, f"core-sounds-{language}.txt.gz", f"asterisk-core-sounds-{language}")
        )
        voice = find_below(folder, f"{language}_*/vm-goodbye.g722", f"asterisk-core-sounds-{language}-g722").parent
        for path in sorted(voice.rglob("*.g722")):
            name = path.relative_to(voice).with_suffix("").as_posix()
            text = texts.get(name.casefold())  # the lists and the files differ in case: letters/O, letters/o
            if _NO_SPEECH.fullmatch(name) or text == "" or path.stat().st_size == 0:
                continue
            recordings.append(Recording(f"{language}_{name.replace('/', '_')}", path, language, text))
    return recordings


def read_prompt_texts(path: str | Path) -> dict[str, str]:
    """Read core-sounds-XX.txt.gz: lower-case prompt name -> text without notes ("" where only a note stands)."""
    texts = {}
    for line in gzip.decompress(Path(path).read_bytes()).decode("utf-8-sig").splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            texts[name.strip().casefold()] = " ".join(_NOTE.sub(" ", text).split())
    return texts


def decode_g722(path: Path, max_seconds: float) -> tuple[Tensor, int]:
    """Raw G.722 at 64 kbit/s -> (audio (samples,) float32, 16000)."""
    try:
        import av
    except ImportError as error:
        raise WavedistillError("decoding G.722 needs PyAV: pip install av") from error
    if path.stat().st_size > max_seconds * 8000:  # 8 bits code two samples
        raise WavedistillError(f"{path}: {path.stat().st_size / 8000:.0f} s long, at most {max_seconds:g} s are taken")
    try:
        with av.open(str(path), format="g722") as container:
            blocks = [torch.from_numpy(frame.to_ndarray()).flatten() for frame in container.decode(audio=0)]
    except av.error.FFmpegError as error:
        raise WavedistillError(f"{path}: not readable as G.722 ({error})") from error
    if not blocks:
        raise WavedistillError(f"{path}: no samples in the file")
    return torch.cat(blocks).float() / 32768.0, 16000
