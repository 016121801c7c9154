"""A run under way: all that changes while a model trains, what a state file holds, and what is due after a step."""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from wavedistill.config import to_dict
from wavedistill.distributed import Ranks
from wavedistill.errors import WavedistillError
from wavedistill.training.adversary import Adversary
from wavedistill.training.checkpoint import check_same_model, find_state, save_state
from wavedistill.training.compute import chosen_precision
from wavedistill.training.ema import EMA
from wavedistill.training.muon import Muon, hidden_matrices
from wavedistill.training.optimizer import ClippedOptimizer
from wavedistill.training.recipe import StudentRecipe
from wavedistill.training.warm_start import load_weights

if TYPE_CHECKING:
    from wavedistill.training.config import OptimConfig
    from wavedistill.training.recipe import Recipe
    from wavedistill.training.task import Task


class Due(NamedTuple):
    """What follows a step."""

    log: bool
    validate: bool
    sample: bool
    save: bool


@dataclass
class Run:
    """What training changes, and where it computes.

    Attributes:
        task: holds the model that is trained.
        ranks, device: this process among those of the run, and its device.
        precision: in which it computes: fp32, bf16 or fp16.
        adversary: trains the task's discriminators, where it has any.
        wandb_id: names the run at Weights & Biases.
        card: what the README.md of its checkpoint says; None: a short one.
        step: finished steps.
        elapsed: seconds trained, over all resumes.
        saved_at: ``elapsed`` at the last save.
    """

    recipe: Recipe
    task: Task
    ranks: Ranks
    device: torch.device
    precision: str
    optimizer: ClippedOptimizer
    ema: EMA
    adversary: Adversary | None
    wandb_id: str
    card: str | None = None
    step: int = 0
    elapsed: float = 0.0
    saved_at: float = 0.0

    @classmethod
    def begin(cls, task: Task, recipe: Recipe, ranks: Ranks, device: torch.device) -> Run:
        """The run that a recipe asks for: continued where there is state, else fresh or from ``run.init_from``.

        Raises:
            WavedistillError: the state is of another model or optimizer, or cannot be read, or ``run.resume`` forbids
                it; ``optim.muon_lr`` is above 0 and the model has nothing for it.
        """
        config = recipe.run
        state = find_state(Path(config.dir), config.resume)
        if state is not None:
            check_same_model(state, to_dict(recipe), Path(config.dir))
        elif config.init_from is not None:
            load_weights(task.model, config.init_from, config.init_resize)
        task.to(device)
        precision = chosen_precision(config.precision, device)
        optimizer = _optimizer(task.model, recipe.optim, precision, device)
        adversary = None
        if task.discriminators is not None:
            adversary = Adversary(task, precision, device, ranks)
        ema = EMA(task.model, recipe.optim.ema)
        run = cls(recipe, task, ranks, device, precision, optimizer, ema, adversary, wandb_id=secrets.token_hex(4))
        if state is not None:
            run.load_state_dict(state)
        return run

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as a state file holds it."""
        state = {"step": self.step, "elapsed": self.elapsed, "config": to_dict(self.recipe), "wandb_id": self.wandb_id}
        state |= {"model": self.task.model.state_dict(), "ema": self.ema.state_dict()}
        state |= self.optimizer.state_dict()
        return state if self.adversary is None else state | {"adversary": self.adversary.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.task.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state)
        self.ema.load_state_dict(state["ema"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state.get("adversary"))
        self.step = state["step"]
        self.elapsed = self.saved_at = state["elapsed"]
        self.wandb_id = state["wandb_id"]

    def save(self) -> None:
        """Write the checkpoint to use and the state to resume from into the run folder."""
        from wavedistill.models.pretrained import save_pretrained

        folder = Path(self.recipe.run.dir)
        # the checkpoint first: a final state then means that everything of the run is there
        with self.ema.applied():
            save_pretrained(self.task.model, folder / "checkpoint", card=self.card)
        save_state(folder, self.state_dict(), self.recipe.run.keep)

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the time is up."""
        config = self.recipe.run
        return self.step >= config.steps or (config.minutes is not None and self.elapsed >= 60 * config.minutes)

    def due(self, stop_requested: bool) -> Due:
        """What is due after this step; a run that is asked to stop saves, and leaves out what only takes time."""
        config = self.recipe.run
        last = self.is_over
        save = last or stop_requested or self.step % config.save_every == 0
        if config.save_minutes is not None:
            save = save or self.elapsed - self.saved_at >= 60 * config.save_minutes
        return Due(
            # a save closes the window of the means, so that a resumed run logs what an uninterrupted one would
            log=save or self.step % config.log_every == 0,
            validate=last or (self.step % config.validate_every == 0 and not stop_requested),
            sample=last or (self.step % config.sample_every == 0 and not stop_requested),
            save=save,
        )

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """In this context the model is in eval mode with the averaged weights, and its noise is always the same."""
        self.task.model.eval()
        torch.manual_seed(self.recipe.run.seed)
        with self.ema.applied(), torch.no_grad():
            yield
        self.task.model.train()

    @property
    def resume_command(self) -> str:
        """What to type to continue."""
        verb = "distill" if isinstance(self.recipe, StudentRecipe) else "train"
        allowed = " --run.resume auto" if self.recipe.run.resume == "never" else ""
        return f"wavedistill {verb} {shlex.quote(str(Path(self.recipe.run.dir) / 'config.yaml'))}{allowed}"


def _optimizer(model: nn.Module, optim: OptimConfig, precision: str, device: torch.device) -> ClippedOptimizer:
    muon = None
    if optim.muon_lr > 0:
        matrices = hidden_matrices(model)
        if not matrices:
            raise WavedistillError("optim.muon_lr is above 0, but this model has no hidden matrices. Set it to 0.")
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        muon = Muon(matrices, optim.muon_lr, optim.weight_decay, dtype)
    return ClippedOptimizer(
        [p for p in model.parameters() if p.requires_grad],
        lr=optim.lr,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        clip_norm=optim.clip_norm,
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        muon=muon,
    )
