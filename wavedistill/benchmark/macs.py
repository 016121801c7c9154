"""How much arithmetic a network does: its multiply-adds, counted while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

FREE_NAMESPACES = {"aten", "prim", "prims", "profiler"}


@dataclass
class MacCount:
    """Multiply-adds (MAC) of a run.

    Matrix products and convolutions count exactly; a fast Fourier transform of n real points counts 1.25 n log2 n (half
    a MAC for each of the usual 2.5 n log2 n operations; complex: twice that). Not counted: elementwise work (gates,
    activations, windows), and compiled loops that are no operator of torch (`wavedistill.dsp.mel_inversion`: some 10^6
    a second of audio).

    Attributes:
        macs: how many.
        uncounted: names of custom operators whose work is not in the count.
    """

    macs: float = 0.0
    uncounted: set[str] = field(default_factory=set)


def count_macs(run: Callable[[], Any]) -> MacCount:
    """Run it once and count."""
    counter = _Counter()
    with counter:
        run()
    return counter.count


def _fft(points: Tensor, dims: list[int]) -> float:
    """Operations of a real transform over ``dims`` of ``points``, halved."""
    size = math.prod(points.shape[d] for d in dims)
    return 1.25 * points.numel() * math.log2(max(size, 2))


_FORMULAS: dict[str, Callable[[tuple, Any], float]] = {
    "aten::mv": lambda args, out: args[0].numel(),
    "aten::addmv": lambda args, out: args[1].numel(),
    "aten::dot": lambda args, out: args[0].numel(),
    "aten::_fft_r2c": lambda args, out: _fft(args[0], args[1]),
    "aten::_fft_c2r": lambda args, out: _fft(out, args[1]),
    "aten::_fft_c2c": lambda args, out: 2.0 * _fft(out, args[1]),
    "wavedistill::recursive_filter": lambda args, out: out.numel() * args[1].shape[-1],
    "wavedistill::block_fir": lambda args, out: out.numel() * args[1].shape[-1],
    # of order p: 2 (0 + 1 + ... + p - 1) in the coefficients, p in the error
    "wavedistill::levinson_recursion": lambda args, out: out[0].numel() * out[0].shape[-1],
}
"""MACs of operators that torch.utils.flop_counter does not know, from their arguments and result."""


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = MacCount()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        packet = _out_of_place(func._overloadpacket)
        name = f"{func.namespace}::{packet.__name__}"
        if packet not in flop_registry and name not in _FORMULAS:
            with self:  # operators made of others (linear, matmul) are counted in their parts
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if packet in flop_registry:
            self.count.macs += flop_registry[packet](*args, **kwargs, out_val=out) / 2
        elif name in _FORMULAS:
            self.count.macs += _FORMULAS[name](args, out)
        elif func.namespace not in FREE_NAMESPACES:
            self.count.uncounted.add(name)
        return out


def _out_of_place(packet: Any) -> Any:
    """The operator that does the same work as one that writes into its first argument (``baddbmm_``)."""
    name = packet.__name__
    return getattr(torch.ops.aten, name[:-1], packet) if name.endswith("_") and not name.endswith("__") else packet


def marginal_macs(prepare: Callable[[int], Callable[[], Any]], frames: int) -> MacCount:
    """Of ``frames`` more mel frames: what twice as many cost less what these cost, so that edges do not count.

    Args:
        prepare: number of frames -> run.
        frames: how many.
    """
    with torch.inference_mode():
        once, twice = (count_macs(prepare(count * frames)) for count in (1, 2))
    return MacCount(twice.macs - once.macs, once.uncounted | twice.uncounted)
