"""Score models of notes on the held-out ones.

python recipes/notes/evaluate.py data/notes runs/notes-student runs/notes-teacher
"""

import argparse

from tqdm import tqdm

from wavedistill.errors import WavedistillError
from wavedistill.notes.evaluate import evaluate_notes, table

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", help="manifest.jsonl of recipes/notes, or its folder")
    parser.add_argument("checkpoints", nargs="*", help="checkpoint or run folders, or bundled names")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    args = parser.parse_args()
    try:
        print(table(evaluate_notes(args.manifest, args.checkpoints, seed=args.seed, progress=tqdm)))
    except WavedistillError as error:
        parser.exit(2, f"error: {error}\n")
