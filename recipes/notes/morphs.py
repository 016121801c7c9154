"""Morph notes into each other and measure the pitches between: python recipes/notes/morphs.py data/notes"""

import argparse

from tqdm import tqdm

from wavedistill.applications.morphed_notes import measure_morphs
from wavedistill.errors import WavedistillError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", help="manifest.jsonl of recipes/notes, or its folder")
    parser.add_argument("--checkpoint", default="notes-teacher", help="a teacher of notes (default: %(default)s)")
    args = parser.parse_args()
    try:
        print(measure_morphs(args.manifest, args.checkpoint, tqdm))
    except WavedistillError as error:
        parser.exit(2, f"error: {error}\n")
