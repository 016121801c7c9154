"""Tux Paint's stamps (Debian package ``tuxpaint-stamps-default``, GPL-2): their names, spoken, 44.1 kHz Vorbis.

One speaker a language, phrases of one to two seconds. Romanian and Belarusian are there to train on, Bulgarian and
Greek stay unheard, to judge by. (Other languages are clipped, noisy or of several speakers.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wavedistill.data.corpora.debian import find_below, unpacked_source
from wavedistill.data.manifest import read_manifest, write_manifest
from wavedistill.data.prepare import Recording, prepare_recordings
from wavedistill.data.prepare_report import PrepareReport

PACKAGE = "tuxpaint-stamps-default"
TRAINED = ("ro", "be")
UNHEARD = ("bg", "el")


def tuxpaint_recordings(folder: str | Path) -> list[Recording]:
    """The spoken names below ``folder``, in the four languages; speakers are tuxpaint_ro, tuxpaint_be and so on."""
    stamps = find_below(folder, "tuxpaint/stamps", PACKAGE)
    recordings = []
    for language in (*TRAINED, *UNHEARD):
        for path in sorted(stamps.rglob(f"*_desc_{language}.ogg")):
            name = path.relative_to(stamps).with_suffix("").as_posix().removesuffix(f"_desc_{language}")
            text = _text(path.with_name(f"{Path(name).name}.txt"), language)
            speaker = f"tuxpaint_{language}"
            recordings.append(Recording(f"{speaker}_{name.replace('/', '_')}", path, speaker, text))
    return recordings


def prepare_tuxpaint(out: str | Path, source: str | Path | None = None, **options) -> PrepareReport:
    """Prepare the four speakers into ``out``, the unheard ones all for testing; otherwise as ``prepare_festvox_ru``."""
    recordings = tuxpaint_recordings(unpacked_source(source, [PACKAGE], out))
    report = prepare_recordings(recordings, out, **options)
    unheard = {f"tuxpaint_{language}" for language in UNHEARD}
    entries = read_manifest(report.manifest)
    write_manifest(report.manifest, [replace(e, split="test") if e.speaker in unheard else e for e in entries])
    return report


def _text(path: Path, language: str) -> str | None:
    """The line ``language.utf8=...`` of a stamp's texts."""
    if not path.is_file():
        return None
    start = f"{language}.utf8="
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(start):
            return " ".join(line.removeprefix(start).split()) or None
    return None
