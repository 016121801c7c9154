"""Train and compare the variants of ablations.yaml: OMP_NUM_THREADS=1 python recipes/ablations/ablate.py"""

import argparse
import sys
from functools import partial
from pathlib import Path

from wavedistill.ablation.ablate import AblationConfig, run_ablations
from wavedistill.text import fill_block

FOLDER = Path(__file__).parent

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/speech", help="prepared recordings; default: %(default)s")
    parser.add_argument("--runs", default="runs/ablations", help="folder of the training runs; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, help="training time of a student; default: %(default)s")
    parser.add_argument("--teacher-seconds", type=float, default=120, help="that of a teacher; default: %(default)s")
    parser.add_argument("--steps", type=int, help="training steps of each instead")
    parser.add_argument("--clips", type=int, default=12, help="held-out clips to measure; default: %(default)s")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="this variant; may be repeated")
    args = parser.parse_args()
    config = AblationConfig(args.seconds, args.teacher_seconds, args.steps, tuple(args.only), args.clips)
    echo = partial(print, file=sys.stderr, flush=True)
    table = run_ablations(FOLDER / "ablations.yaml", args.data, args.runs, FOLDER / "results", config, echo=echo)
    fill_block(FOLDER / "README.md", "ablations", table.read_text().strip())
