"""Synthesis of folders: batches of similar length, resumable, in shards; failures are listed and stop nothing.

What an output sounds like depends on its input, the input's name and the seed only, not on the inputs around it: each
has noise of its own. A run that was killed and started again, or spread over shards, ends with the same bytes (see
``plan.py``), on the same kind of processor with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from wavedistill.distributed import Ranks, current_ranks, resolve_device
from wavedistill.errors import WavedistillError
from wavedistill.inference.batch.pipeline import synthesize_batches
from wavedistill.inference.batch.plan import ExecutionConfig, Plan, RenderOptions, SynthesisReport
from wavedistill.inference.vocoder import Vocoder


def synthesize(
    inputs: str | Path | Sequence[str | Path],
    checkpoint: str | Path | Vocoder,
    out: str | Path,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    speaker: int | str | None = None,
    device: str | torch.device = "cpu",
    execution: ExecutionConfig | None = None,
) -> SynthesisReport:
    """Synthesise files and folders of recordings or mels into ``out``.

        synthesize("recordings", "speech-student", "spoken", seed=1)

    The next batch is read and the last one is written while this one is computed; three batches are in memory at most.

    Args:
        inputs: files or folders (searched with their sub-folders): wav, flac, ogg, mp3, or log-mel ``.npy`` of shape
            (n_mels, frames).
        checkpoint: folder, run folder, bundled name or hub id; or a loaded `Vocoder`, for the engine "local".
        out: output folder. An input keeps its sub-folder and stem: ``in/a/b.flac`` becomes ``out/a/b.wav``; where two
            inputs would so get one name, both keep their suffix (``b.flac.wav``, ``b.mp3.wav``).
        seed: with the input's name it decides the input's noise.
        temperature: scale of the noise.
        speaker: index or name, for a model with speakers.
        device: where to compute; of a loaded `Vocoder` its own. "cuda" under torchrun is the GPU of the process, and
            with the engine "ray" a GPU for each worker.
        execution: engine, shard, size of the batches and so on; see `ExecutionConfig`.

    Outputs are written whole or not at all, so one that exists is finished and is skipped. Inputs that fail are listed
    in the report and in ``out/failures.json`` (``failures-i-of-n.json`` of a shard), which is removed when none fails.

    Raises:
        WavedistillError: missing inputs or checkpoint, a model without mel conditioning, options that do not go
            together, a folder that cannot be written (full or read-only), or one that holds speech of another model or
            seed: then nothing after it could succeed either.
    """
    execution = execution or ExecutionConfig()
    ranks = current_ranks()
    execution.check(ranks.world_size)
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    options = RenderOptions(seed, temperature, speaker)
    if execution.engine == "ray":
        from wavedistill.inference.batch.ray_engine import synthesize_with_ray

        if isinstance(checkpoint, Vocoder):
            raise WavedistillError("--engine ray loads the model in each worker: give a checkpoint's name or folder")
        return synthesize_with_ray(given, checkpoint, Path(out), options, execution, str(device))
    vocoder = _load(checkpoint, device, execution.precision, ranks)
    shard = execution.shard or (ranks.rank, ranks.world_size)
    plan = Plan(given, Path(out), vocoder, options, execution.batch_seconds, shard)
    with plan.progress_bar(execution.progress) as bar:
        plan.report.add(synthesize_batches(plan.batches, vocoder, options, bar.update))
    return plan.finish()


def _load(checkpoint: str | Path | Vocoder, device: str | torch.device, precision: str, ranks: Ranks) -> Vocoder:
    if isinstance(checkpoint, Vocoder):
        if precision != "fp32":
            raise WavedistillError(
                f"precision {precision} is set when a model is loaded: Vocoder.from_pretrained(name, precision="
                f'"{precision}"), or give the checkpoint\'s name'
            )
        return checkpoint
    device = resolve_device(str(device), ranks if ranks.world_size > 1 else None)
    return Vocoder.from_pretrained(checkpoint, device, precision)
