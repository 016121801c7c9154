"""festvox-ru (Debian package ``festvox-ru``): 620 utterances of one Russian speaker, 16 kHz PCM."""

from __future__ import annotations

import re
from pathlib import Path

from wavedistill.data.corpora.debian import find_below, unpacked_source
from wavedistill.data.prepare import Recording, prepare_recordings
from wavedistill.data.prepare_report import PrepareReport
from wavedistill.errors import WavedistillError

FESTVOX_RU_PACKAGES = ("festvox-ru",)
_UTTERANCE = re.compile(r'^\(\s*(\S+)\s+"((?:[^"\\]|\\.)*)"\s*\)\s*$')


def prepare_festvox_ru(out: str | Path, source: str | Path | None = None, **options) -> PrepareReport:
    """Prepare festvox-ru into ``out``: from ``source``, a folder with the unpacked package, or by apt-get
    (the package then stays unpacked in ``out``/source).

    Further options go to ``prepare_recordings``.
    """
    folder = unpacked_source(source, FESTVOX_RU_PACKAGES, out)
    return prepare_recordings(festvox_ru_recordings(folder), out, **options)


def festvox_ru_recordings(folder: str | Path) -> list[Recording]:
    """The utterances below ``folder``, anywhere in which etc/txt.done.data and wav/ lie side by side."""
    prompts = find_below(folder, "etc/txt.done.data", "festvox-ru")
    recordings = []
    for line in prompts.read_text(encoding="utf-8").splitlines():
        if match := _UTTERANCE.match(line):
            name = match[1]
            text = re.sub(r"\\(.)", r"\1", match[2])
            # "+" marks the stressed vowel for the synthesiser; it is no part of the sentence.
            recordings.append(
                Recording(
                    f"festvox_{name}",
                    prompts.parent.parent / "wav" / f"{name}.wav",
                    "festvox_ru",
                    text.replace("+", "").strip(),
                )
            )
    if not recordings:
        raise WavedistillError(f'{prompts}: no line of the form ( name "text" )')
    return recordings
