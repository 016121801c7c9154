"""The work of a batch synthesis: batches of items in, files out; reading, computing and writing overlap.

Every engine does it by these lines.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from wavedistill.audio.io import save_audio
from wavedistill.audio.mel import LogMelSpectrogram
from wavedistill.errors import WavedistillError
from wavedistill.files import remove_leftovers
from wavedistill.inference.batch.inputs import Item, read_mel
from wavedistill.inference.batch.plan import Batch, Failure, RenderOptions, SynthesisReport
from wavedistill.inference.vocoder import Vocoder


@dataclass
class _Loaded:
    """A batch that is read: its usable items, their mels (batch, n_mels, frames) and lengths in samples."""

    batch: Batch
    items: list[Item]
    mels: Tensor | None  # None: nothing to compute
    lengths: list[int]


@dataclass
class _Computed:
    """A batch that is computed: audio (batch, samples) on the CPU, complete once ``copied`` has come."""

    loaded: _Loaded
    audio: Tensor | None
    copied: torch.cuda.Event | None


def synthesize_batches(
    batches: Iterable[Batch],
    vocoder: Vocoder,
    options: RenderOptions,
    done: Callable[[int], object] = lambda files: None,
) -> SynthesisReport:
    """Write the missing outputs of ``batches``; reading, computing and writing overlap.

    ``done`` is called with the number of files of each batch that is finished. Inputs that turn out to be unusable are
    in the report's failures. Raises WavedistillError where an output cannot be written.
    """
    report = SynthesisReport()
    front_end = LogMelSpectrogram(vocoder.mel_config)  # on the CPU, which has time for it while a GPU computes
    on_gpu = vocoder.device.type == "cuda"

    def read(batch: Batch) -> _Loaded:
        items = []
        mels = []
        lengths = []
        for item in batch.items:
            try:
                mel, length = read_mel(item.input, front_end)
            except WavedistillError as error:
                report.failures.append(Failure(str(item.input), str(error)))
                continue
            items.append(item)
            mels.append(mel)
            lengths.append(length)
        if batch.missing.isdisjoint(items):
            return _Loaded(batch, items, None, lengths)
        # models take a mel as continued by its last frame, so padding it that way changes nothing
        longest = max(mel.shape[-1] for mel in mels)
        padded = [torch.nn.functional.pad(mel, (0, longest - mel.shape[-1]), mode="replicate") for mel in mels]
        stacked = torch.stack(padded)
        return _Loaded(batch, items, stacked.pin_memory() if on_gpu else stacked, lengths)

    def compute(loaded: _Loaded) -> _Computed:
        # finished members are computed too: a batch of the same shape gives the same bytes
        if loaded.mels is None:
            return _Computed(loaded, None, None)
        mels = loaded.mels.to(vocoder.device, non_blocking=True)
        seeds = [item_seed(options.seed, item.name) for item in loaded.items]
        audio = vocoder.render(mels, seeds, temperature=options.temperature, speaker=options.speaker)
        audio = audio.to("cpu", non_blocking=True)  # from a GPU into pinned memory
        return _Computed(loaded, audio, torch.cuda.current_stream(vocoder.device).record_event() if on_gpu else None)

    def write(computed: _Computed) -> None:
        loaded = computed.loaded
        if computed.copied is not None:
            computed.copied.synchronize()
        if computed.audio is not None:
            for item, wave, length in zip(loaded.items, computed.audio, loaded.lengths, strict=True):
                if item in loaded.batch.missing:
                    remove_leftovers(item.output.parent, glob.escape(item.output.name))
                    save_audio(item.output, wave[:length], vocoder.sample_rate)
                    report.written.append(item.output)
                    report.seconds += length / vocoder.sample_rate
        done(len(loaded.batch.items))

    overlapped(batches, read, compute, write)
    return report


def item_seed(seed: int, name: str) -> int:
    """The seed of one item's noise, from the run's seed and the item's name (its output path without the suffix)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


Part = TypeVar("Part")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


def overlapped(
    parts: Iterable[Part],
    read: Callable[[Part], Loaded],
    compute: Callable[[Loaded], Result],
    write: Callable[[Result], None],
) -> None:
    """``write(compute(read(part)))`` for each part, in order.

    ``read`` and ``write`` have a thread each, ``compute`` runs in the caller's. At most three parts are in memory: one
    read, one computed, one written.

    An error of any step is raised here and stops the job: what was computed before it is still written, the part read
    ahead is dropped. An error of ``write`` is seen when the part being computed meanwhile is done. When this returns or
    raises, Ctrl-C included, both threads have ended and no ``write`` was cut short.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        queue = iter(parts)
        reading = _submit_next(reader, read, queue)
        writing = None
        while reading is not None:
            loaded = reading.result()
            reading = _submit_next(reader, read, queue)
            result = compute(loaded)
            if writing is not None:
                writing.result()
            writing = writer.submit(write, result)
        if writing is not None:
            writing.result()


def _submit_next(pool: ThreadPoolExecutor, function: Callable, queue: Iterable) -> Future | None:
    for part in queue:
        return pool.submit(function, part)
    return None
