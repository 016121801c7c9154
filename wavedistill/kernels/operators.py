"""Compiled loops as operators of torch: torch.compile, torch.export and vmap can go through them.

`torch.library.custom_op` does the same, but imports torch._dynamo at an operator's first call, which costs seconds (the
first synthesis of a fresh process took 6.9 s with it and 2.3 s without, on one busy core); its parts, registered one by
one, do not.

Example:
    >>> import torch
    >>> from wavedistill.kernels.operators import operator
    >>> @operator(fake=torch.empty_like)
    ... def negated(x: torch.Tensor) -> torch.Tensor:
    ...     return torch.from_numpy(-x.numpy())
    >>> negated(torch.ones(2)), torch.vmap(negated)(torch.ones(1, 2))
    (tensor([-1., -1.]), tensor([[-1., -1.]]))
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "wavedistill"


class Operator:
    """A function on CPU tensors whose results share no memory with its arguments, as ``torch.ops.wavedistill.<name>``.

    Attributes:
        overload: what a graph of torch.export holds.
    """

    def __init__(self, function: Callable, fake: Callable) -> None:
        functools.update_wrapper(self, function)
        self.name = f"{NAMESPACE}::{function.__name__}"
        torch.library.define(self.name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(self.name, "cpu", function)
        torch.library.register_fake(self.name, fake)
        self.overload = getattr(torch.ops.wavedistill, function.__name__).default
        torch.library.register_vmap(self.name, _over_batches(self.overload))

    def __call__(self, *arguments: Tensor) -> Any:
        return self.overload(*arguments)

    def differentiate(self, backward: Callable, save: Callable | None = None) -> None:
        """Give the gradient: ``backward(ctx, gradient)`` from what ``save(ctx, inputs, output)`` kept (all inputs)."""
        torch.library.register_autograd(self.name, backward, setup_context=save or _save_inputs)


def operator(fake: Callable) -> Callable[[Callable], Operator]:
    """Decorator that makes an `Operator`; ``fake(*arguments)`` gives empty results of the right shapes and types."""
    return functools.partial(Operator, fake=fake)


def _save_inputs(ctx, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _over_batches(overload: Callable) -> Callable:
    """vmap's rule: the mapped axis is one more batch axis."""

    def mapped(info, in_dims: tuple[int | None, ...], *arguments: Tensor) -> tuple[Any, Any]:
        stacked = [
            value.expand(info.batch_size, *value.shape) if axis is None else value.movedim(axis, 0)
            for value, axis in zip(arguments, in_dims, strict=True)
        ]
        out = overload(*(value.flatten(0, 1) for value in stacked))
        if isinstance(out, tuple):
            return tuple(one.unflatten(0, stacked[0].shape[:2]) for one in out), (0,) * len(out)
        return out.unflatten(0, stacked[0].shape[:2]), 0

    return mapped
