"""How a step computes: optimizer, precision, random numbers, memory."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ClippedAdamW:
    """AdamW with gradient clipping and, in float16, a scaled loss. Its weight decay spares biases and gains.

    Args:
        parameters: what is trained.
        clip_norm: the largest global norm of a gradient; longer ones are scaled down to it.
        scaler: of the loss; one that is not enabled leaves it as it is.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        clip_norm: float,
        scaler: torch.amp.GradScaler,
    ) -> None:
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.parameters = list(parameters)
        self._adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=tuple(betas), fused=True)
        self._clip_norm = clip_norm
        self._scaler = scaler

    def set_lr(self, lr: float) -> None:
        """The learning rate of the steps from now on."""
        for group in self._adamw.param_groups:
            group["lr"] = lr

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss."""
        self._scaler.scale(loss).backward()

    def clip(self) -> tuple[Tensor, Tensor]:
        """Clip the gradient; its norm before, and whether that is finite, both on the device.

        With a scaler it counts as finite: the scaler skips the other steps by itself.
        """
        self._scaler.unscale_(self._adamw)
        norm = nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        return norm, torch.ones_like(norm, dtype=torch.bool) if self._scaler.is_enabled() else torch.isfinite(norm)

    def step(self) -> None:
        """Change the parameters and forget the gradient."""
        self._scaler.step(self._adamw)
        self._scaler.update()
        self._adamw.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """``optimizer`` and ``scaler``, all that a resumed run needs."""
        return {"optimizer": self._adamw.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; further keys are allowed."""
        self._adamw.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context in which a forward pass runs with ``run.precision``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST[precision])


def step_seed(seed: int, step: int, rank: int, micro: int) -> int:
    """Seed of the random numbers of one batch of a step."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}/{micro}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keep_freed_memory() -> None:
    """Tell glibc not to return big buffers to the system after every step, which costs page faults at each reuse."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        m_mmap_threshold = -3
        m_trim_threshold = -1
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 1 << 30)
