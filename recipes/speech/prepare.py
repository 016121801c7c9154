"""Prepare both corpora, six speakers: python recipes/speech/prepare.py --out data/speech [--source DIR]

The audio goes to festvox_ru and asterisk beside --out, the one manifest over both into --out.
"""

from wavedistill.data.corpora.speech import prepare_speech
from wavedistill.data.script import run_prepare

if __name__ == "__main__":
    print(run_prepare(prepare_speech, __doc__))
