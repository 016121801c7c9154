"""LJ Speech: 13,100 sentences of one speaker in English, 24 hours at 22,050 Hz, found and downloaded by torchaudio."""

from __future__ import annotations

from pathlib import Path

from wavedistill.data.prepare import Recording, prepare_recordings
from wavedistill.data.prepare_report import PrepareReport


def prepare_ljspeech(out: str | Path, source: str | Path | None = None, **options) -> PrepareReport:
    """Prepare LJ Speech into ``out``: from ``source``, the folder that holds LJSpeech-1.1, or downloaded into
    ``out``/source (2.6 GB).

    Further options go to ``prepare_recordings``.
    """
    from torchaudio.datasets import LJSPEECH

    root = Path(source or Path(out) / "source")
    Path(out, "source").mkdir(parents=True, exist_ok=True)
    corpus = LJSPEECH(root, download=source is None)
    folder = corpus._path
    rows = corpus._flist  # its items would load the audio, with torchcodec
    recordings = [Recording(name, folder / f"{name}.wav", "ljspeech", text) for name, _, text in rows]
    return prepare_recordings(recordings, out, **options)
