"""Cut gaps into held-out speech, fill them and compare: python recipes/speech/restoration.py data/speech"""

import argparse

from tqdm import tqdm

from wavedistill.applications.gap_filling import RestoreConfig
from wavedistill.applications.restored_speech import measure_restoration
from wavedistill.errors import WavedistillError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", help="manifest.jsonl of recipes/speech, or its folder")
    parser.add_argument("--checkpoint", default="speech-teacher", help="a teacher (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=8, help="held-out clips (default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=16, help="for each gap (default: %(default)s)")
    args = parser.parse_args()
    try:
        config = RestoreConfig(args.candidates)
        print(measure_restoration(args.manifest, args.checkpoint, args.clips, config, tqdm))
    except WavedistillError as error:
        parser.exit(2, f"error: {error}\n")
