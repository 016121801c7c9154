"""Prepare LJ Speech at its own 22,050 Hz: python recipes/ljspeech/prepare.py --out data/ljspeech [--source DIR]

DIR holds the folder LJSpeech-1.1; without --source, torchaudio downloads it (2.6 GB) into the output folder.
"""

from wavedistill.data.corpora.ljspeech import prepare_ljspeech
from wavedistill.data.script import run_prepare

if __name__ == "__main__":
    print(run_prepare(prepare_ljspeech, __doc__, sample_rate=22050))
