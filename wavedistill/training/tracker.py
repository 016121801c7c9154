"""What a run leaves to look at: metrics.jsonl, samples, a progress bar, Weights & Biases."""

from __future__ import annotations

import logging
import netrc
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from tqdm import tqdm

from wavedistill.audio.io import save_audio
from wavedistill.audio.mel import LogMelSpectrogram, MelConfig
from wavedistill.audio.plot import plot_mels
from wavedistill.config import to_dict
from wavedistill.errors import WavedistillError
from wavedistill.training.metrics_file import METRICS_FILE, append_metrics, truncate_metrics
from wavedistill.training.schedule import progress

if TYPE_CHECKING:
    from torch import nn

    from wavedistill.training.config import RunConfig
    from wavedistill.training.recipe import Recipe
    from wavedistill.training.task import Sample

logger = logging.getLogger(__name__)


class Tracker:
    """Writes ``metrics.jsonl`` and ``samples/`` into the run folder, and the same to Weights & Biases.

    Args:
        recipe: the run's recipe.
        model: the trained model, for its sample rate and mel settings.
        step, elapsed: finished steps and seconds trained; metrics of later steps, which a killed run may have left, are
            removed.
        wandb_id: names the run at Weights & Biases, so that a resumed run continues its curves.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, step: int, elapsed: float, wandb_id: str) -> None:
        self._run = recipe.run
        self._model = model
        self._run_dir = Path(recipe.run.dir)
        self._first = (step, elapsed)
        self._numbers: dict[str, str] = {}
        self._metrics = self._run_dir / METRICS_FILE
        truncate_metrics(self._metrics, step)
        self._wandb = _start_wandb(recipe, wandb_id)
        # a log file is not a terminal: a line every half minute is enough there
        self._bar = tqdm(
            total=1.0,
            miniters=0,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            bar_format="{l_bar}{bar:20}|{postfix}",
        )

    def log(self, step: int, kind: str, elapsed: float, values: dict[str, float]) -> None:
        """Append one line ``{"step", "kind", "elapsed", <name>: <number>, ...}``; ``kind`` is train or valid."""
        append_metrics(self._metrics, step, kind, elapsed, values)
        if values:
            name, value = next(iter(values.items()))
            self._numbers[kind] = f"{kind} {name} {value:.4g}"
        if self._wandb is not None:
            self._wandb.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def samples(self, step: int, samples: list[Sample]) -> None:
        """Write ``samples/step-XXXXXXX/<name>.wav`` with a picture: the mel it was made from, and its own."""
        folder = self._run_dir / "samples" / f"step-{step:07d}"
        for sample in samples:
            try:
                wav, picture = self._write_sample(folder, sample)
            except WavedistillError as error:  # an early model may make NaN; that is no reason to stop its training
                logger.warning("sample %s of step %d not written: %s", sample.name, step, error)
                continue
            if self._wandb is not None:
                import wandb

                audio = wandb.Audio(str(wav), sample_rate=self._model.sample_rate, caption=sample.name)
                media = {f"samples/{sample.name}": audio, f"mels/{sample.name}": wandb.Image(str(picture))}
                self._wandb.log(media, step=step)

    def show(self, step: int, elapsed: float) -> None:
        """Move the progress bar."""
        run = self._run
        (first_step, first_elapsed) = self._first
        speed = (step - first_step) / max(elapsed - first_elapsed, 1e-6)
        remaining = (run.steps - step) / max(speed, 1e-9)
        if run.minutes is not None:
            remaining = max(0.0, min(remaining, 60 * run.minutes - elapsed))
        eta = timedelta(seconds=round(remaining))
        facts = [f"step {step}/{run.steps}", f"eta {eta}", f"{speed:.2f} steps/s", *self._numbers.values()]
        self._bar.set_postfix_str(", ".join(facts), refresh=False)
        self._bar.update(progress(step, run.steps, elapsed, run.minutes) - self._bar.n)

    def close(self) -> None:
        """Finish the bar and the run at Weights & Biases."""
        self._bar.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _write_sample(self, folder: Path, sample: Sample) -> tuple[Path, Path]:
        rate = self._model.sample_rate
        mel_config = self._model.config.mel or MelConfig(sample_rate=rate, f_max=min(8000.0, rate / 2))
        audio = sample.audio.detach().float().cpu()
        mels = {} if sample.mel is None else {"condition": sample.mel.detach().float().cpu()}
        mels[sample.name] = LogMelSpectrogram(mel_config)(audio)
        wav = save_audio(folder / f"{sample.name}.wav", audio, rate)
        plot_mels(mels, folder / f"{sample.name}.png", mel_config.hop_length, rate)
        return wav, folder / f"{sample.name}.png"


def wandb_mode(run: RunConfig) -> str:
    """``online`` where Weights & Biases has a key for us, else ``offline``; ``disabled`` where it is not wanted."""
    if run.wandb == "off":
        return "disabled"
    if chosen := os.environ.get("WANDB_MODE"):
        return chosen
    return "online" if os.environ.get("WANDB_API_KEY") or _has_netrc_login() else "offline"


def _has_netrc_login() -> bool:
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _start_wandb(recipe: Recipe, wandb_id: str) -> Any | None:
    mode = wandb_mode(recipe.run)
    if mode == "disabled":
        return None
    import wandb

    run_dir = Path(recipe.run.dir)
    try:
        return wandb.init(
            project=recipe.run.wandb_project,
            name=run_dir.name,
            id=wandb_id,
            # offline, the id alone joins the parts of a resumed run when they are synchronised
            resume="allow" if mode == "online" else None,
            dir=run_dir,
            config=to_dict(recipe),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.Error as error:
        logger.warning("no Weights & Biases for this run (%s); metrics.jsonl has the numbers", error)
        return None
