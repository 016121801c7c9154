"""Synthesis of folders: length-bucketed batches, resumable, shardable, with failures listed instead of fatal.

What an item sounds like depends on the item, its name and the seed only, not on the items around it: each has noise of
its own. A run that was killed and started again, or spread over shards, ends with the same bytes (see ``job.py``), on
the same kind of processor with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from wavedistill.inference.batch.pipeline import synthesize_batches
from wavedistill.inference.batch.plan import Job, RenderOptions, SynthesisReport
from wavedistill.inference.vocoder import Vocoder


def synthesize(
    inputs: str | Path | Sequence[str | Path],
    checkpoint: str | Path | Vocoder,
    out: str | Path,
    *,
    seed: int = 0,
    batch_seconds: float = 20.0,
    shard: tuple[int, int] = (0, 1),
    temperature: float = 1.0,
    speaker: int | str | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> SynthesisReport:
    """Synthesise files and folders of recordings or mels into ``out``.

    Reading the next batch and writing the last overlap with the computing of this one; three batches are in memory at
    most.

    Args:
        inputs: files or folders (searched with their sub-folders): wav, flac, ogg, mp3, or log-mel ``.npy`` of shape
            (n_mels, frames).
        checkpoint: folder, run folder, bundled name or hub id; or a loaded `Vocoder`.
        out: output folder. An item keeps its sub-folder and stem: ``in/a/b.flac`` becomes ``out/a/b.wav``; where two
            inputs would so get one name, both keep their suffix (``b.flac.wav``, ``b.mp3.wav``).
        seed: with the item's name it decides the item's noise.
        batch_seconds: most audio computed at once, padding included; longer items are computed alone, in chunks.
        shard: (i, n): do only the i-th of n disjoint parts (i from 0).
        temperature: scale of the noise.
        speaker: index or name, for a model with speakers.
        device: where to compute, if ``checkpoint`` is to be loaded.
        progress: show a bar.

    Outputs are written whole or not at all, so one that exists is finished and is skipped. Inputs that fail are listed
    in the report and in ``out/failures.json`` (``failures-i-of-n.json`` of a shard), which is removed when none fails.

    Raises:
        WavedistillError: missing inputs or checkpoint, a model without mel conditioning, a folder that cannot be
            written (full or read-only), or one that holds speech of another voice or seed: then nothing after it could
            succeed either.
    """
    vocoder = checkpoint if isinstance(checkpoint, Vocoder) else Vocoder.from_pretrained(checkpoint, device)
    options = RenderOptions(seed, temperature, speaker)
    job = Job(inputs, Path(out), vocoder, options, batch_seconds, shard)
    with job.progress_bar(progress) as bar:
        job.report.add(synthesize_batches(job.batches, vocoder, options, bar.update))
    return job.finish()
