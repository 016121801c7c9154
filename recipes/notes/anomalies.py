"""Tell faulty notes from normal ones: python recipes/notes/anomalies.py data/notes --out runs/anomalies"""

import argparse
from functools import partial

from tqdm import tqdm

from wavedistill.applications.anomalous_notes import measure_notes
from wavedistill.errors import WavedistillError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", help="manifest.jsonl of recipes/notes, or its folder")
    parser.add_argument("--checkpoint", default="notes-teacher", help="a teacher of notes (default: %(default)s)")
    parser.add_argument("--out", required=True, help="folder for the faulty notes and what the model says of them")
    args = parser.parse_args()
    try:
        print(measure_notes(args.manifest, args.checkpoint, args.out, partial(tqdm, unit="sound")))
    except WavedistillError as error:
        parser.exit(2, f"error: {error}\n")
