"""Clip held-out speech, restore and compare: python recipes/speech/declipping.py web/examples"""

import argparse

from tqdm import tqdm

from wavedistill.applications.declipped_speech import measure_declipping
from wavedistill.applications.declipping import DeclipConfig
from wavedistill.errors import WavedistillError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+", help="recordings, folders of them, or a manifest.jsonl")
    parser.add_argument("--checkpoint", default="speech-teacher", help="a Gaussian teacher (default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=32, help="(default: %(default)s)")
    args = parser.parse_args()
    try:
        print(measure_declipping(args.inputs, args.checkpoint, DeclipConfig(args.candidates), tqdm))
    except WavedistillError as error:
        parser.exit(2, f"error: {error}\n")
