"""How small and how fast, beside FLAC and WavPack: python -m wavedistill.applications.compression.table --help

Every file is coded by each system, decoded again and compared; sizes are of whole files, headers included. Speeds are
in CPU seconds of one thread, the systems in turns on the same files.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wavedistill.applications.compression.codec import decode, encode
from wavedistill.applications.compression.container import unpack
from wavedistill.applications.compression.model import Codec, load_codec
from wavedistill.applications.compression.pcm import Pcm, read_pcm, write_pcm
from wavedistill.applications.compression.training_data import paths_by_speaker
from wavedistill.errors import WavedistillError
from wavedistill.text import fill_block, markdown_table

OURS = "wavedistill"


class Program(NamedTuple):
    """A program's commands, in which ``{wav}``, ``{packed}`` and ``{out}`` stand for files; its files' suffix."""

    compress: list[str]
    decompress: list[str]
    suffix: str


PROGRAMS = {
    "FLAC -8": Program(
        ["flac", "-8", "--no-padding", "-s", "-f", "-o", "{packed}", "{wav}"],
        ["flac", "-d", "-s", "-f", "-o", "{out}", "{packed}"],
        ".flac",
    ),
    "WavPack -hh": Program(
        ["wavpack", "-hh", "-q", "-y", "{wav}", "-o", "{packed}"],
        ["wvunpack", "-q", "-y", "{packed}", "-o", "{out}"],
        ".wv",
    ),
}


@dataclass
class Cost:
    """Bytes and CPU seconds of one system over some files."""

    size: int = 0
    encoding: float = 0.0
    decoding: float = 0.0

    def add(self, other: Cost) -> None:
        self.size += other.size
        self.encoding += other.encoding
        self.decoding += other.decoding


@dataclass
class Row:
    """Sums over the files of one line of the table."""

    files: int = 0
    samples: int = 0
    seconds: float = 0.0
    bits: int = 0
    costs: dict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))

    def add(self, pcm: Pcm, costs: dict[str, Cost]) -> None:
        self.files += 1
        self.samples += pcm.samples.size
        self.seconds += len(pcm.samples) / pcm.sample_rate
        self.bits += pcm.samples.size * pcm.bits
        for name, cost in costs.items():
            self.costs[name].add(cost)


def recordings(manifests: Sequence[str], clips: int, seed: int = 0) -> Iterator[tuple[list[str], Pcm]]:
    """(rows, recording) of ``clips`` held-out recordings of each speaker, drawn by ``seed``; then noise and silence."""
    for manifest in manifests:
        corpus = Path(manifest).parent.name
        for speaker, paths in paths_by_speaker([manifest], "test"):
            for i in np.random.default_rng(seed).permutation(len(paths))[:clips]:
                yield [f"{corpus}: {speaker}", f"{corpus}, all"], read_pcm(paths[i])
    noise = np.random.default_rng(seed).integers(-(1 << 15), 1 << 15, (32000, 1))
    yield ["white noise, full scale"], Pcm(noise, 16000, "WAV", "PCM_16")
    yield ["digital silence"], Pcm(np.zeros_like(noise), 16000, "WAV", "PCM_16")


def measure(pcm: Pcm, codec: Codec, folder: Path) -> dict[str, Cost]:
    """The costs of one recording for each system that is installed; each has to give the same samples again."""
    wav = folder / "in.wav"
    out = folder / "out.wav"
    write_pcm(wav, pcm)
    costs = {}
    for name, program in PROGRAMS.items():
        if shutil.which(program.compress[0]):
            packed = folder / f"packed{program.suffix}"
            names = {"wav": wav, "packed": packed, "out": out}
            encoding = _run([word.format(**names) for word in program.compress])
            decoding = _run([word.format(**names) for word in program.decompress])
            costs[name] = Cost(packed.stat().st_size, encoding, decoding)
            _check(name, read_pcm(out), pcm)
    data, encoding = _timed(lambda: encode(pcm, codec))
    decoded, decoding = _timed(lambda: decode(unpack(data, wav), codec, wav))
    costs[OURS] = Cost(len(data), encoding, decoding)
    _check(OURS, decoded, pcm)
    return costs


def table(rows: dict[str, Row]) -> str:
    """Bits per sample of every system, how much smaller ours is, and CPU speeds of encoding and decoding."""
    systems = [name for name in (*PROGRAMS, OURS) if any(name in row.costs for row in rows.values())]
    head = ["recordings", "files", "s", "PCM", *systems]
    head += [f"smaller than {name}" for name in systems if name != OURS]
    head += [f"{name}, x real time" for name in systems]
    lines = []
    for title, row in sorted(rows.items(), key=lambda pair: _order(pair[0])):
        line = [title, row.files, f"{row.seconds:.0f}", f"{row.bits / row.samples:.0f}"]
        line += [f"{8 * row.costs[name].size / row.samples:.3f}" for name in systems]
        line += [f"{1 - row.costs[OURS].size / row.costs[name].size:.1%}" for name in systems if name != OURS]
        for name in systems:
            cost = row.costs[name]
            line.append(f"{row.seconds / cost.encoding:.3g} / {row.seconds / cost.decoding:.3g}")
        lines.append(line)
    return markdown_table(head, lines)


def _order(title: str) -> tuple[bool, str]:
    """Corpora first, each before its speakers."""
    return not title.endswith(", all") and ": " not in title, title


def _timed(call: Callable[[], object]) -> tuple:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def _run(command: list[str]) -> float:
    """CPU seconds of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _check(name: str, decoded: Pcm, pcm: Pcm) -> None:
    if not np.array_equal(decoded.samples, pcm.samples):
        raise WavedistillError(f"{name} gave other samples than it was given")


def main(argv: Sequence[str] | None = None) -> None:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description="Measure the lossless codec beside FLAC and WavPack.")
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="manifest.jsonl of prepared corpora")
    parser.add_argument("--clips", type=int, default=4, help="recordings of each speaker (default: %(default)d)")
    parser.add_argument("--checkpoint", metavar="DIR", help="codec to measure (default: the bundled one)")
    parser.add_argument("--page", metavar="FILE", help="Markdown page whose block 'compression' the table fills")
    args = parser.parse_args(argv)
    codec = load_codec(args.checkpoint)
    rows: dict[str, Row] = defaultdict(Row)
    with tempfile.TemporaryDirectory() as folder:
        measure(Pcm(np.arange(400).reshape(-1, 1) % 7, 16000, "WAV", "PCM_16"), codec, Path(folder))  # compiles
        for titles, pcm in tqdm(recordings(args.manifests, args.clips), desc="measuring", unit="file"):
            costs = measure(pcm, codec, Path(folder))
            for title in titles:
                rows[title].add(pcm, costs)
    text = table(rows)
    tqdm.write(text)
    if args.page:
        fill_block(args.page, "compression", text)


if __name__ == "__main__":
    main()
