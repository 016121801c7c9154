"""The optimizer of a run: AdamW, beside it Muon for the hidden matrices, clipping, and float16's scaled loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.errors import WavedistillError
from wavedistill.training.muon import Muon


class ClippedOptimizer:
    """AdamW, and Muon for its matrices, with gradient clipping and, in float16, a scaled loss.

    Weight decay spares biases and gains.

    Args:
        parameters: what is trained.
        lr, betas, weight_decay: AdamW's; `set_lr_scale` scales the peak learning rates of both.
        clip_norm: the largest global norm of a gradient; longer ones are scaled down to it.
        scaler: of the loss; one that is not enabled leaves it as it is.
        muon: trains its matrices, which are among ``parameters``, in AdamW's place.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        clip_norm: float,
        scaler: torch.amp.GradScaler,
        muon: Muon | None = None,
    ) -> None:
        self.parameters = list(parameters)
        of_muon = {matrix for group in muon.param_groups for matrix in group["params"]} if muon else set()
        others = [p for p in parameters if p not in of_muon]
        groups = [
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=tuple(betas), fused=True)
        self._muon = muon
        self._both = self._adamw if muon is None else _Together(self._adamw, muon)
        self._clip_norm = clip_norm
        self._scaler = scaler

    def set_lr_scale(self, scale: float) -> None:
        """The learning rates of the steps from now on, over their peaks."""
        for optimizer in (self._adamw, self._muon):
            if optimizer is not None:
                for group in optimizer.param_groups:
                    group["lr"] = scale * optimizer.defaults["lr"]

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss."""
        self._scaler.scale(loss).backward()

    def clip(self) -> tuple[Tensor, Tensor]:
        """Clip the gradient; its norm before, and whether that is finite, both on the device.

        With a scaler it counts as finite: the scaler skips the other steps by itself.
        """
        self._scaler.unscale_(self._both)
        norm = nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        return norm, torch.ones_like(norm, dtype=torch.bool) if self._scaler.is_enabled() else torch.isfinite(norm)

    def step(self) -> None:
        """Change the parameters and forget the gradient."""
        self._scaler.step(self._both)
        self._scaler.update()
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """``optimizer``, ``scaler`` and, where there is Muon, ``muon``: all that a resumed run needs."""
        state = {"optimizer": self._adamw.state_dict(), "scaler": self._scaler.state_dict()}
        return state if self._muon is None else state | {"muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; further keys are allowed.

        Raises:
            WavedistillError: the state was written with Muon, and this is without; or the reverse.
        """
        if ("muon" in state) != (self._muon is not None):
            until_now = "above 0" if "muon" in state else "0"
            raise WavedistillError(
                f"cannot resume: optim.muon_lr was {until_now} in this run until now, and one optimizer cannot "
                "continue from the other's moments. Give it as in the run's config.yaml, or begin in a folder of its "
                "own, from this run's weights: --run.dir DIR --run.init_from RUN."
            )
        self._adamw.load_state_dict(state["optimizer"])
        if self._muon is not None:
            self._muon.load_state_dict(state["muon"])
        self._scaler.load_state_dict(state["scaler"])


class _Together:
    """Optimizers as one, as far as a scaler looks: it skips a step of all of them or of none."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self._optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self._optimizers:
            optimizer.step()
