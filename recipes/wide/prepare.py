"""Prepare speech for 24 kHz: python recipes/wide/prepare.py --out data/wide [--source DIR]

Needs: pip install hibari-tts. --source: a folder with festvox-ru, asterisk-core-sounds-* and tuxpaint-stamps-default
unpacked. The audio goes into folders beside --out, which gets the one manifest over what may be trained on;
DIR-human holds people's voices to judge by.
"""

from wavedistill.data.corpora.wide import prepare_wide
from wavedistill.data.script import run_prepare

if __name__ == "__main__":
    print(run_prepare(prepare_wide, __doc__, sample_rate=24000))
