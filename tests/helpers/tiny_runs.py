"""Options and data with which a recipe is run for two steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wavedistill.data.manifest import read_manifest, write_manifest
from wavedistill.data.toy import prepare_toy

TINY = """
    --model.stack.num_layers 2 --model.stack.num_cycles 1 --model.stack.channels 4 --model.stack.skip_channels 4
    --model.cond_channels 4 --data.segment_seconds 0.1 --data.batch_size 2 --run.device cpu --run.wandb off
    --run.steps 2 --run.log_every 1 --run.validate_every 2 --run.validate_batches 1 --run.sample_every 2
    --run.save_every 2
""".split()


def make_tones(out: Path, sample_rate: int = 16000, speakers: list[str] | None = None, seconds: float = 0.4) -> Path:
    """Eight tones in the layout of prepared data."""
    manifest = prepare_toy(out, 8, seconds=seconds, sample_rate=sample_rate)
    if speakers:
        entries = read_manifest(manifest)
        write_manifest(manifest, [replace(e, speaker=speakers[i % len(speakers)]) for i, e in enumerate(entries)])
    return manifest
