"""Broken inputs by the thousand: what the commands do with them.

    cd tests && python -m reliability.fuzz --cases 2000

Each case breaks one file in one way and gives it to the command that reads it, beside a good neighbour where that takes
several files. It passes where the command ends by itself, within ten seconds of processor time and 4 GB, without a
traceback, and the neighbour's output is there. What does not pass is kept with its file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
from helpers.tiny_models import MEL, prepared_speech, speech_like, tiny_student, tiny_teacher  # noqa: E402
from tqdm import tqdm  # noqa: E402

from reliability.isolated import Ended, Running, last_line, warm_up  # noqa: E402
from reliability.mutations import mutated  # noqa: E402
from wavedistill.audio.io import save_audio  # noqa: E402
from wavedistill.audio.mel import LogMelSpectrogram  # noqa: E402
from wavedistill.models.pretrained import save_pretrained  # noqa: E402
from wavedistill.text import markdown_table  # noqa: E402

MAX_SECONDS = 10.0
"""Of processor time, so that a busy machine changes no verdict."""
MAX_MEGABYTES = 4096.0
RATE = MEL.sample_rate
AUDIO_KINDS = ("wav", "flac", "ogg", "mp3")
TEXT_KINDS = ("manifest", "recipe", "config.json")
KINDS = (*AUDIO_KINDS, "npy", *TEXT_KINDS, "safetensors")
SUBTYPES = {
    "wav": ["PCM_16", "PCM_24", "FLOAT", "DOUBLE", "PCM_U8", "ULAW", "IMA_ADPCM"],
    "flac": ["PCM_16", "PCM_24"],
    "ogg": ["VORBIS", "OPUS"],
    "mp3": ["MPEG_LAYER_III"],
}
RECIPE = """\
kind: teacher
model:
  mel: {sample_rate: 8000, n_fft: 256, win_length: 256, hop_length: 64, n_mels: 20, f_max: 4000.0}
  sample_rate: 8000
  stack: {num_layers: 2, num_cycles: 1, kernel_size: 2, channels: 4, skip_channels: 4}
  cond_channels: 4
  cond_upsample: 4
  linear_order: 4
  distribution: gaussian
data: {manifest: MANIFEST, batch_size: 2, segment_seconds: 0.2}
optim: {lr: 1e-3, warmup_steps: 2, betas: [0.9, 0.99], clip_norm: 1.0}
run:
  {dir: run, steps: 1, log_every: 1, validate_every: 1, validate_batches: 1, sample_every: 1, device: cpu, wandb: "off"}
"""


@dataclass
class Tally:
    """What became of the cases of one kind."""

    endings: Counter = field(default_factory=Counter)
    slowest: float = 0.0
    largest: float = 0.0

    def add(self, ended: Ended, ending: str) -> None:
        self.endings[ending] += 1
        self.slowest = max(self.slowest, ended.seconds)
        self.largest = max(self.largest, ended.megabytes)


class Fuzz:
    """Good files of every kind, and the cases made of them.

    Args:
        folder: for all that is made.
        seed: of the damage; case i of a seed is always the same.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.student = save_pretrained(tiny_student(), folder / "student")
        self.teacher = save_pretrained(tiny_teacher(), folder / "teacher")
        warm_up(self.student, self.teacher)
        self.manifest = prepared_speech(folder / "speech", train=2, valid=1)
        self.neighbour = save_audio(folder / "good.wav", speech_like(0.7, RATE, seed=5), RATE)
        self.good = {kind: self._audio(kind) for kind in AUDIO_KINDS}
        self.good["npy"] = self._arrays()
        self.good["manifest"] = [self.manifest.read_bytes()]
        self.good["recipe"] = [RECIPE.replace("MANIFEST", str(self.manifest)).encode()]
        self.good["config.json"] = [(self.student / "config.json").read_bytes()]
        self.good["safetensors"] = [(self.student / "model.safetensors").read_bytes()]
        self.others = [contents[0] for contents in self.good.values()] + self._strangers()

    def case(self, number: int, kind: str) -> tuple[Ended, str, Path, str]:
        """Run a case: how it ended, the verdict, the broken file, and what was done to it."""
        chance = random.Random(f"{self.seed}/{kind}/{number}")
        damage, content = mutated(chance.choice(self.good[kind]), self.others, kind in TEXT_KINDS, chance)
        return *self._run(kind, content, chance), damage

    def check_unbroken(self, kind: str) -> None:
        """A file as it is must be taken, or its broken copies would say nothing."""
        ended, verdict, _ = self._run(kind, self.good[kind][0], random.Random(self.seed))
        if verdict != "done":
            raise RuntimeError(f"a good {kind} gives {verdict}:\n{ended.output}")

    def _run(self, kind: str, content: bytes, chance: random.Random) -> tuple[Ended, str, Path]:
        place = self.folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        runner = self._audio_case if kind in (*AUDIO_KINDS, "npy") else getattr(self, f"_{kind.split('.')[0]}_case")
        words, broken, is_done = runner(place, kind, content, chance)
        ended = Running(words).wait(max_seconds=MAX_SECONDS, max_megabytes=MAX_MEGABYTES)
        return ended, _verdict(ended, is_done), broken

    # ---- the commands

    def _audio_case(self, place: Path, kind: str, content: bytes, chance: random.Random) -> tuple:
        broken = _written(place / "in" / f"bad.{kind}", content)
        shutil.copy(self.neighbour, place / "in" / "good.wav")
        out = place / "out"
        if kind == "npy" or chance.random() < 0.5:
            words = ["synthesize", str(place / "in"), "--checkpoint", str(self.student), "--out", str(out)]
            return words, broken, lambda: _lasts(out / "good.wav", 0.7)
        words = ["prepare", str(place / "in"), "--out", str(out), "--sample-rate", str(RATE)]
        return words, broken, lambda: _lasts(out / "wavs" / "good.wav", 0.4)

    def _manifest_case(self, place: Path, kind: str, content: bytes, chance: random.Random) -> tuple:
        for path in self.manifest.parent.glob("*.wav"):
            (place / path.name).symlink_to(path)
        broken = _written(place / "manifest.jsonl", content)
        recipe = _written(place / "recipe.yaml", RECIPE.replace("MANIFEST", str(broken)).encode())
        return self._train(recipe, place), broken, lambda: True

    def _recipe_case(self, place: Path, kind: str, content: bytes, chance: random.Random) -> tuple:
        broken = _written(place / "recipe.yaml", content)
        return self._train(broken, place), broken, lambda: True

    def _train(self, recipe: Path, place: Path) -> list[str]:
        return ["train", str(recipe), "--run.dir", str(place / "run"), "--run.steps", "1", "--run.wandb", "off"]

    def _config_case(self, place: Path, kind: str, content: bytes, chance: random.Random) -> tuple:
        broken = _written(place / "model" / "config.json", content)
        shutil.copy(self.student / "model.safetensors", place / "model")
        return self._speak(place), broken, lambda: True

    def _safetensors_case(self, place: Path, kind: str, content: bytes, chance: random.Random) -> tuple:
        broken = _written(place / "model" / "model.safetensors", content)
        config = json.loads((self.student / "config.json").read_text())
        if chance.random() < 0.9:  # with the hash nothing broken is ever parsed
            del config["weights_sha256"]
        _written(place / "model" / "config.json", json.dumps(config).encode())
        return self._speak(place), broken, lambda: True

    def _speak(self, place: Path) -> list[str]:
        options = ["--checkpoint", str(place / "model"), "--out", str(place / "out")]
        return ["synthesize", str(self.neighbour), *options]

    # ---- good files

    def _audio(self, kind: str) -> list[bytes]:
        audio = speech_like(0.6, RATE, seed=3).numpy()
        found = []
        for subtype in SUBTYPES[kind]:
            rate = 48000 if subtype == "OPUS" else RATE
            for data in (audio, np.stack([audio, audio], axis=1)):
                buffer = io.BytesIO()
                soundfile.write(buffer, data, rate, format=kind.upper(), subtype=subtype)
                found.append(buffer.getvalue())
        if kind == "wav":
            found.append(found[0][:40] + b"\xff\xff\xff\xff" + found[0][44:])  # from a pipe: its length is unknown
        if kind == "flac":
            found.append(found[0][:21] + bytes([found[0][21] & 0xF0, 0, 0, 0, 0]) + found[0][26:])
        if kind == "mp3":
            found.append(found[0].replace(b"Xing", b"xxxx").replace(b"Info", b"xxxx"))
        return found

    def _arrays(self) -> list[bytes]:
        mel = LogMelSpectrogram(MEL)(speech_like(0.6, RATE, seed=4)).numpy()
        found = []
        for array in (mel, mel[None], mel.astype(np.float64), mel.astype(">f4"), np.asfortranarray(mel)):
            buffer = io.BytesIO()
            np.save(buffer, array)
            found.append(buffer.getvalue())
        return found

    def _strangers(self) -> list[bytes]:
        """Files of formats that are not read, and of none."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("data.pkl", pickle.dumps({"a": 1}))
        state = io.BytesIO()
        torch.save({"a": torch.zeros(3)}, state)
        found = [archive.getvalue(), state.getvalue(), pickle.dumps([1, 2]), b"", b"\x89PNG\r\n\x1a\n" + bytes(64)]
        found += [b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(64), b"#!/bin/sh\nexit\n", b"\xef\xbb\xbf{}", bytes(5000)]
        for name in ("AIFF", "CAF", "W64", "RF64", "AU", "VOC"):
            buffer = io.BytesIO()
            soundfile.write(buffer, np.zeros(RATE), RATE, format=name, subtype="PCM_16")
            found.append(buffer.getvalue())
        return found


def _verdict(ended: Ended, is_done: Callable[[], bool]) -> str:
    if ended.stopped:
        return "memory" if ended.megabytes > MAX_MEGABYTES else "hang"
    if ended.crashed:
        return "traceback"
    if not is_done():
        return "neighbour lost"
    return "done" if ended.code == 0 else "refused"


def _lasts(path: Path, seconds: float) -> bool:
    return path.is_file() and soundfile.info(str(path)).duration >= seconds


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


FAULTS = ("traceback", "hang", "memory", "neighbour lost")


def run_cases(cases: int, seed: int, kept: Path | None = None, kinds: tuple[str, ...] = KINDS) -> dict[str, Tally]:
    """``cases`` cases, the kinds in turn; what does not pass is put into ``kept`` and told on stderr.

    Ctrl-C ends it early, with the cases so far.
    """
    tallies = {kind: Tally() for kind in kinds}
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        fuzz = Fuzz(Path(folder), seed)
        for kind in kinds:
            fuzz.check_unbroken(kind)
        for number in tqdm(range(cases), unit="case", dynamic_ncols=True, disable=None):
            kind = kinds[number % len(kinds)]
            ended, verdict, broken, damage = fuzz.case(number, kind)
            tallies[kind].add(ended, verdict)
            if verdict in FAULTS:
                print(f"case {number}, {kind}, {damage}: {verdict}: {last_line(ended)}", file=sys.stderr, flush=True)
                if kept is not None:
                    _written(kept / f"{number}-{broken.name}", broken.read_bytes())
                    _written(kept / f"{number}.txt", ended.output.encode())
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """One line a kind: how its cases ended."""
    head = ["broken", "cases", "refused in words", "taken", *FAULTS, "slowest, s", "most memory, MB"]
    rows = [
        [
            kind,
            tally.endings.total(),
            tally.endings["refused"],
            tally.endings["done"],
            *(tally.endings[fault] for fault in FAULTS),
            f"{tally.slowest:.1f}",
            f"{tally.largest:.0f}",
        ]
        for kind, tally in tallies.items()
    ]
    return markdown_table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--kind", action="append", choices=KINDS, help="may be repeated (default: all)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), metavar="DIR", help="for what does not pass")
    args = parser.parse_args()
    tallies = run_cases(args.cases, args.seed, args.keep, tuple(args.kind or KINDS))
    print(table(tallies))
    return int(any(tally.endings[fault] for tally in tallies.values() for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
