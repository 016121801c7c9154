"""How a step computes: precision, random numbers, memory."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import sys

import torch

from wavedistill.numerics import has_bfloat16

logger = logging.getLogger(__name__)

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def chosen_precision(precision: str, device: torch.device) -> str:
    """``run.precision`` on this device: "auto" is bf16 where the device has instructions for it, else fp32."""
    fast = has_bfloat16(device)
    if precision == "auto":
        return "bf16" if fast else "fp32"
    if precision == "bf16" and not fast:
        logger.warning("%s has no instructions for bfloat16: --run.precision auto or fp32 is faster", device)
    return precision


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context in which a forward pass runs with a precision of `chosen_precision`."""
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
