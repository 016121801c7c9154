"""Training state on disk: written atomically, read without pickles, the newest readable one found again."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import torch

from wavedistill.errors import WavedistillError
from wavedistill.files import atomic

logger = logging.getLogger(__name__)

FORMAT = 1
_KEYS = {"format", "step", "elapsed", "model", "optimizer", "ema", "scaler", "config", "wandb_id"}
_NAME = re.compile(r"step-(\d{7,})\.pt")


def state_path(run_dir: Path, step: int) -> Path:
    """Where the state after ``step`` steps lies."""
    return run_dir / "state" / f"step-{step:07d}.pt"


def list_states(run_dir: Path) -> list[tuple[int, Path]]:
    """(step, path) of every state file in a run folder, oldest first."""
    names = ((_NAME.fullmatch(path.name), path) for path in (run_dir / "state").glob("step-*.pt"))
    return sorted((int(match[1]), path) for match, path in names if match)


def save_state(run_dir: Path, state: dict[str, Any], keep: int) -> Path:
    """Write a state atomically, then delete all but the newest ``keep``.

    States of later steps are deleted too: they are unreadable, or the run was taken back behind them.
    """
    path = state_path(run_dir, state["step"])
    save_atomically(path, {"format": FORMAT, **state})
    states = list_states(run_dir)
    older = [old for step, old in states if step <= state["step"]]
    later = [old for step, old in states if step > state["step"]]
    for old in older[: max(0, len(older) - keep)] + later:
        old.unlink(missing_ok=True)
    return path


def save_atomically(path: Path, value: Any) -> None:
    """torch.save, flushed to disk."""
    with atomic(path, "Free some space or give another --run.dir.") as temporary, temporary.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error).splitlines()[0]) from error
        file.flush()
        os.fsync(file.fileno())


def load_state(path: Path) -> dict[str, Any]:
    """Read one state file onto the CPU.

    Raises:
        WavedistillError: when the file is missing, torn or something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and OS errors alike: the file cannot be used
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WavedistillError(f"cannot read the training state {path}: {reason}") from error
    if not isinstance(state, dict) or not _KEYS <= state.keys() or state["format"] != FORMAT:
        raise WavedistillError(f"{path} is no training state of this version. Give a <run>/state/step-*.pt file.")
    return state


def load_newest_state(run_dir: Path) -> dict[str, Any] | None:
    """The newest readable state of a run folder, or None where it has none.

    An unreadable one is skipped with a warning.

    Raises:
        WavedistillError: when there are states and none can be read.
    """
    states = list_states(run_dir)
    for _, path in reversed(states):
        try:
            return load_state(path)
        except WavedistillError as error:
            logger.warning("%s; trying the one before it", error)
    if states:
        raise WavedistillError(f"no state in {run_dir / 'state'} can be read. Give another --run.dir to start again.")
    return None


def find_state(run_dir: Path, resume: str) -> dict[str, Any] | None:
    """The state that ``run.resume`` asks for, or None for a fresh start (see ``RunConfig.resume``)."""
    if resume == "never":
        if list_states(run_dir):
            raise WavedistillError(
                f"{run_dir} already holds a run and run.resume is 'never'. Give another --run.dir, or "
                "--run.resume auto."
            )
        return None
    own = load_newest_state(run_dir)
    if own is not None or resume == "auto":
        return own
    source = Path(resume)
    state = load_newest_state(source) if source.is_dir() else load_state(source)
    if state is None:
        raise WavedistillError(f"{source} holds no training state. Give a run folder or a <run>/state/step-*.pt file.")
    return state


def check_same_model(state: dict[str, Any], config: dict[str, Any], run_dir: Path) -> None:
    """Refuse to continue a run with another model configuration, naming the fields that differ."""
    before = _flatten(state["config"]["model"])
    now = _flatten(config["model"])
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if names:
        shown = ", ".join(f"model.{name} {before.get(name)} -> {now.get(name)}" for name in names[:4])
        raise WavedistillError(
            f"cannot resume {run_dir}: the model differs ({shown}). "
            "Give another --run.dir, or the configuration the run was started with."
        )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
