"""Generate tones: python recipes/toy/prepare.py --out data/toy [--clips 120]"""

import argparse

from wavedistill.data.script import summary
from wavedistill.data.toy import prepare_toy

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to fill")
    parser.add_argument("--clips", type=int, default=120, metavar="N", help="tones of 2 s (default: %(default)s)")
    args = parser.parse_args()
    prepare_toy(args.out, args.clips)
    print(summary(args.out))
