"""Render notes of four instruments: python recipes/notes/prepare.py --out data/notes [--source DIR]

Needs FluidSynth and a soundfont: apt-get install fluidsynth fluid-soundfont-gm. --source: a folder with FluidR3_GM.sf2.
"""

from wavedistill.data.script import run_prepare
from wavedistill.notes.corpus import prepare_notes

if __name__ == "__main__":
    print(run_prepare(prepare_notes, __doc__))
