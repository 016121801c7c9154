"""What `tests/flows/test_contract.py` needs to know about a layer; ``tests/flows/cases/`` lists the layers."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.paths import ROOT
from wavedistill.errors import WavedistillError
from wavedistill.flows import Transform

CHECKS = {  # names that `exempt` may hold
    "round_trip",
    "inverse",
    "log_det",
    "gradients",
    "every_parameter",
    "edges",
    "empty",
    "long",
    "autocast",
    "compile",
    "vmap",
    "nan",
    "state",
    "expanded",
    "torch_func",
    "second_derivatives",
    "second_derivatives_by_torch_func",
    "half_precision",
    "gpu",
    "cuda",
}
BACKWARD_INSIDE = "its log-determinant takes gradients, which torch cannot run on a fake cuda device"


@dataclass
class Case:
    """One layer with parameters that are not trivial, on one shape.

    Attributes:
        make: builds the layer in float32; the seed is set before each call. Shake zero-initialised parameters
            (`shake`).
        event: shape of one value: (dim,) or (channels, samples).
        cond: batch -> condition in float32 (a tensor, or a named tuple of tensors); None without one.
        domain: brings a standard normal tensor into the layer's domain; None: the real numbers.
        codomain: likewise for latent values.
        triangular: "lower" for a strictly causal or autoregressive layer in its natural order; an order of the features
            (a list: position of each feature) for another order.
        density: dim -> layer on vectors of that dimension (1 and 2), whose density must integrate to 1; None: not
            checked.
        events: further shapes of one value that the same layer takes; for waveforms also checked at 1 and 5 samples by
            default.
        tolerance32, tolerance64: of the round trip, relative to max(1, |value|).
        log_det_tolerance: against the autograd Jacobian in float64.
        exempt: check (of `test_gpu` also "inverse gpu"; "cuda" of one device) -> reason why it cannot hold for this
            layer.
        refuses: check, or direction and check ("inverse vmap"), -> what the error says that stands in its place.
        slow: checks that take long of this layer, so that they are left to the slow tests.
    """

    make: Callable[[], Transform]
    event: tuple[int, ...]
    cond: Callable[[int], Any] | None = None
    domain: Callable[[Tensor], Tensor] | None = None
    codomain: Callable[[Tensor], Tensor] | None = None
    triangular: str | list[int] | None = None
    density: Callable[[int], Transform] | None = None
    events: list[tuple[int, ...]] | None = None
    tolerance32: float = 1e-5
    tolerance64: float = 1e-12
    log_det_tolerance: float = 1e-10
    exempt: dict[str, str] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)
    slow: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for check in (*self.exempt, *self.refuses, *self.slow):
            assert check.removeprefix("forward ").removeprefix("inverse ") in CHECKS, f"no such check: {check}"
        if self.events is None:
            self.events = [(self.event[0], 1), (self.event[0], 5)] if len(self.event) == 2 else []

    def refusal(self, check: str, direction: str) -> Any:
        """A context in which the check must fail with the case's error, or one that does nothing."""
        said = self.refuses.get(check, self.refuses.get(f"{direction} {check}"))
        return contextlib.nullcontext() if said is None else pytest.raises(WavedistillError, match=said)

    def build(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> Transform:
        torch.manual_seed(seed)
        return self.make().to(dtype)

    def condition(self, batch: int, dtype: torch.dtype = torch.float32) -> Any:
        if self.cond is None:
            return None
        torch.manual_seed(99)
        return tensors(self.cond(batch), lambda value: value.to(dtype))

    def data(self, batch: int, dtype: torch.dtype = torch.float32, event: tuple[int, ...] | None = None) -> Tensor:
        return self._draw(1, batch, dtype, event or self.event, self.domain)

    def latent(self, batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._draw(
            2, batch, dtype, self.build().forward(self.data(1), self.condition(1)).value.shape[1:], self.codomain
        )

    def _draw(self, seed, batch, dtype, event, into):
        x = torch.randn((batch, *event), dtype=dtype, generator=torch.Generator().manual_seed(seed))
        return into(x) if into else x


def tensors(cond: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The condition with every tensor changed, whether it is one or a tuple of them."""
    if isinstance(cond, Tensor):
        return change(cond)
    if isinstance(cond, tuple):
        return type(cond)(*(None if value is None else change(value) for value in cond))
    return cond


def shake(module: torch.nn.Module, amount: float = 0.1) -> Any:
    """Add noise to every parameter, so that nothing is at its neutral initial value; returns the module."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, dtype=parameter.dtype, device=parameter.device))
    return module


def all_cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for path in sorted((ROOT / "tests/flows/cases").glob("*.py")):
        found = importlib.import_module(f"flows.cases.{path.stem}").CASES
        assert not cases.keys() & found.keys(), f"{path.name} repeats {cases.keys() & found.keys()}"
        cases |= found
    return cases
