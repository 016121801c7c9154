"""Batches of inputs in, files out: the next batch is read and the last one is written while this one is computed.

Every engine uses these functions.
"""

from __future__ import annotations

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
from wavedistill.inference.batch.inputs import Input, read_mel
from wavedistill.inference.batch.plan import Failure, InputBatch, RenderOptions, SynthesisReport
from wavedistill.inference.vocoder import Vocoder


@dataclass
class _Loaded:
    """A batch that has been read: its usable inputs, their mels (batch, n_mels, frames) and lengths in samples."""

    batch: InputBatch
    inputs: list[Input]
    mels: Tensor | None  # None: nothing to compute
    lengths: list[int]


@dataclass
class _Computed:
    """A batch that has been computed: audio (batch, samples) on the CPU, complete once ``copied`` has happened."""

    loaded: _Loaded
    audio: Tensor | None
    copied: torch.cuda.Event | None


def synthesize_batches(
    batches: Iterable[InputBatch],
    vocoder: Vocoder,
    options: RenderOptions,
    done: Callable[[int], object] = lambda files: None,
) -> SynthesisReport:
    """Write the missing outputs of ``batches``, reading and writing in the background.

    ``done`` is called with the number of files of each batch that is finished. Inputs that turn out to be unusable are
    in the report's failures.

    Raises:
        WavedistillError: an output cannot be written.
    """
    report = SynthesisReport()
    front_end = LogMelSpectrogram(vocoder.mel_config)  # on the CPU, which has time for it while a GPU computes
    on_gpu = vocoder.device.type == "cuda"

    def read(batch: InputBatch) -> _Loaded:
        inputs = []
        mels = []
        lengths = []
        for source in batch.inputs:
            try:
                mel, length = read_mel(source.path, front_end)
            except WavedistillError as error:
                report.failures.append(Failure(str(source.path), str(error)))
                continue
            inputs.append(source)
            mels.append(mel)
            lengths.append(length)
        if batch.missing.isdisjoint(inputs):
            return _Loaded(batch, inputs, None, lengths)
        # models take a mel as continued by its last frame, so padding it that way changes nothing
        longest = max(mel.shape[-1] for mel in mels)
        padded = [torch.nn.functional.pad(mel, (0, longest - mel.shape[-1]), mode="replicate") for mel in mels]
        stacked = torch.stack(padded)
        return _Loaded(batch, inputs, stacked.pin_memory() if on_gpu else stacked, lengths)

    def compute(loaded: _Loaded) -> _Computed:
        # finished members are computed too: a batch of the same shape gives the same bytes
        if loaded.mels is None:
            return _Computed(loaded, None, None)
        mels = loaded.mels.to(vocoder.device, non_blocking=True)
        seeds = [input_seed(options.seed, source.name) for source in loaded.inputs]
        audio = vocoder.render(mels, seeds, temperature=options.temperature, speaker=options.speaker)
        audio = audio.to("cpu", non_blocking=True)  # from a GPU into pinned memory
        return _Computed(loaded, audio, torch.cuda.current_stream(vocoder.device).record_event() if on_gpu else None)

    def write(computed: _Computed) -> None:
        loaded = computed.loaded
        if computed.copied is not None:
            computed.copied.synchronize()
        if computed.audio is not None:
            for source, wave, length in zip(loaded.inputs, computed.audio, loaded.lengths, strict=True):
                if source in loaded.batch.missing:
                    remove_leftovers(source.output.parent, source.output.name)
                    save_audio(source.output, wave[:length], vocoder.sample_rate)
                    report.written.append(source.output)
                    report.seconds += length / vocoder.sample_rate
        done(len(loaded.batch.inputs))

    run_pipeline(batches, read, compute, write)
    return report


def input_seed(seed: int, name: str) -> int:
    """The seed of one input's noise, from the run's seed and the input's name (its output path without the suffix)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


Part = TypeVar("Part")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


def run_pipeline(
    parts: Iterable[Part],
    read: Callable[[Part], Loaded],
    compute: Callable[[Loaded], Result],
    write: Callable[[Result], None],
) -> None:
    """``write(compute(read(part)))`` for each part, in order, the three steps at the same time for different parts.

    ``read`` and ``write`` have a thread each, ``compute`` runs in the caller's. At most three parts are in memory: one
    being read, one being computed, one being written.

    An error of any step is raised here and stops everything: what was computed before it is still written, the part
    that was read ahead is dropped. An error of ``write`` is seen when the part being computed meanwhile is done. When
    this returns or raises, also after Ctrl-C, both threads have ended and no ``write`` was cut short.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        queue = iter(parts)
        next_read = _submit_next(reader, read, queue)
        last_write = None
        while next_read is not None:
            loaded = next_read.result()
            next_read = _submit_next(reader, read, queue)
            result = compute(loaded)
            if last_write is not None:
                last_write.result()
            last_write = writer.submit(write, result)
        if last_write is not None:
            last_write.result()


def _submit_next(pool: ThreadPoolExecutor, function: Callable, queue: Iterable) -> Future | None:
    for part in queue:
        return pool.submit(function, part)
    return None
