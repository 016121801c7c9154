"""Prepare the corpus: python recipes/asterisk/prepare.py --out data/asterisk [--source DIR]"""

from wavedistill.data.corpora.asterisk import prepare_asterisk
from wavedistill.data.script import run_prepare

if __name__ == "__main__":
    print(run_prepare(prepare_asterisk, __doc__))
