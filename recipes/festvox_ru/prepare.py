"""Prepare the corpus: python recipes/festvox_ru/prepare.py --out data/festvox_ru [--source DIR]"""

from wavedistill.data.corpora.festvox_ru import prepare_festvox_ru
from wavedistill.data.script import run_prepare

if __name__ == "__main__":
    print(run_prepare(prepare_festvox_ru, __doc__))
