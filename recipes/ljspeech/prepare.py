"""Prepare LJ Speech at its own 22,050 Hz: python recipes/ljspeech/prepare.py --out data/ljspeech [--source DIR]

DIR holds the folder LJSpeech-1.1; without --source, torchaudio downloads it (2.6 GB) into the output folder.
"""

from pathlib import Path

from wavedistill.data.prepare import Recording, prepare_recordings
from wavedistill.data.script import run_prepare


def prepare_ljspeech(out, source=None, **options):
    from torchaudio.datasets import LJSPEECH

    root = Path(source or Path(out) / "source")
    Path(out, "source").mkdir(parents=True, exist_ok=True)
    corpus = LJSPEECH(root, download=source is None)
    folder = corpus._path
    rows = corpus._flist  # its items would load the audio, with torchcodec
    recordings = [Recording(name, folder / f"{name}.wav", "ljspeech", text) for name, _, text in rows]
    return prepare_recordings(recordings, out, **options)


if __name__ == "__main__":
    print(run_prepare(prepare_ljspeech, __doc__, sample_rate=22050))
