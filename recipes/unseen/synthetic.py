"""Tell people from synthetic speech:

python recipes/unseen/synthetic.py --speech data/speech --unseen data/unseen --wide data/wide --out runs/synthetic
"""

import argparse
from functools import partial

from tqdm import tqdm

from wavedistill.applications.synthetic_speech import Corpora, measure_speech
from wavedistill.errors import WavedistillError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("speech", "unseen", "wide"):
        parser.add_argument(f"--{name}", required=True, help=f"folder that recipes/{name}/prepare.py filled")
    parser.add_argument("--clips", type=int, default=10, help="of each unheard voice (default: %(default)s)")
    parser.add_argument("--out", required=True, help="folder for the clips and what the model says of them")
    args = parser.parse_args()
    unheard = {args.unseen: ("librivox",), f"{args.wide}-human": ("tuxpaint_bg", "tuxpaint_el")}
    synthetic = {args.unseen: ("joe",), f"{args.wide}-synthetic": ("heart",)}
    try:
        corpora = Corpora(args.speech, unheard, synthetic, args.clips)
        print(measure_speech(corpora, "speech-teacher", "speech-student", args.out, partial(tqdm, unit="sound")))
    except WavedistillError as error:
        parser.exit(2, f"error: {error}\n")
