"""The discriminators' side of adversarial training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wavedistill.distributed import Ranks
from wavedistill.errors import WavedistillError
from wavedistill.training.compute import autocast
from wavedistill.training.meter import Meter
from wavedistill.training.optimizer import ClippedOptimizer

if TYPE_CHECKING:
    from wavedistill.data.dataset import Batch
    from wavedistill.training.task import AdversarialTask


class Adversary:
    """The discriminators of a task with an optimizer of their own; one step of theirs precedes each of the student's.

    They require a gradient within `step` only: in the student's step they are frozen, pass their gradient on to the
    audio, and are no concern of DistributedDataParallel. Several processes average their gradients here.

    Args:
        task: holds the discriminators, on its device by now.
        precision, device: as the student's.
    """

    def __init__(self, task: AdversarialTask, precision: str, device: torch.device, ranks: Ranks) -> None:
        self._task = task
        self._precision = precision
        self._device = device
        self._ranks = ranks
        self._module = task.discriminators
        self._config = self._module.config
        self._optimizer = ClippedOptimizer(
            list(self._module.parameters()),
            lr=self._config.lr,
            betas=self._config.betas,
            weight_decay=0.0,
            clip_norm=self._config.clip_norm,
            scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        )

    def step(self, batches: Sequence[Batch], seeds: Sequence[int], lr_scale: float, meter: Meter) -> Tensor:
        """One update on the mean gradient of ``batches``; returns whether all was finite, a boolean on the device.

        Args:
            seeds: of each batch's random numbers: given the student's own, they judge the very audio that it then
                learns from.
            lr_scale: the student's learning rate over its peak.
            meter: takes `AdversarialTask.discriminate`'s values and ``discriminator_grad_norm``.
        """
        self._optimizer.set_lr_scale(lr_scale)
        finite = torch.ones((), dtype=torch.bool, device=self._device)
        self._module.requires_grad_(True)
        for batch, seed in zip(batches, seeds, strict=True):
            torch.manual_seed(seed)
            with autocast(self._precision, self._device):
                loss, values = self._task.discriminate(batch)
            self._optimizer.backward(loss / len(batches))
            finite &= torch.isfinite(loss.detach())
            meter.add(values)
        self._module.requires_grad_(False)
        self._average_gradients()
        grad_norm, is_finite = self._optimizer.clip()
        meter.add({"discriminator_grad_norm": grad_norm})
        self._optimizer.step()
        return finite & is_finite

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"discriminators": self._module.state_dict()} | self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            WavedistillError: the run had no discriminators until now, or others.
        """
        if state is None:
            raise WavedistillError(
                "cannot resume: this run had no discriminators until now. Begin the adversarial stage in a folder "
                "of its own, from this run's weights: --run.dir DIR --run.init_from RUN."
            )
        if _shapes(self._module.state_dict()) != _shapes(state["discriminators"]):
            raise WavedistillError(
                "cannot resume: the discriminators differ from the run's. Give loss.discriminator as in the run's "
                "config.yaml, or another --run.dir."
            )
        self._module.load_state_dict(state["discriminators"])
        self._optimizer.load_state_dict(state)

    def _average_gradients(self) -> None:
        if self._ranks.world_size == 1:
            return
        parameters = self._optimizer.parameters
        mean = self._ranks.mean(torch.cat([p.grad.flatten() for p in parameters]))
        for parameter, part in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
