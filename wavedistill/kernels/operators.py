"""Compiled loops as operators of torch, each beside the same in torch's own operations.

The loop runs on a CPU: by itself, and in torch.compile and torch.export. The plain version runs where a loop cannot: on
other devices and under the transforms of torch.func (vmap, grad, jacrev, hessian, ...).

`torch.library.custom_op` does the former, but imports torch._dynamo at an operator's first call, which costs seconds
(the first synthesis of a fresh process took 6.9 s with it and 2.3 s without, on one busy core); its parts, registered
one by one, do not.

Example:
    >>> import torch
    >>> from wavedistill.kernels.operators import operator
    >>> @operator(fake=torch.empty_like, plain=torch.neg)
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
SINGLE = (torch.float32, torch.complex64)


class Operator:
    """A function on CPU tensors whose results share no memory with its arguments, as ``torch.ops.wavedistill.<name>``.

    Attributes:
        overload: what a graph of torch.export holds.
        plain: the same in torch's operations, differentiable as often as they are.
    """

    def __init__(self, function: Callable, fake: Callable, plain: Callable) -> None:
        functools.update_wrapper(self, function)
        self.name = f"{NAMESPACE}::{function.__name__}"
        self.plain = plain
        torch.library.define(self.name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(self.name, "cpu", function)
        torch.library.register_fake(self.name, fake)
        self.overload = getattr(torch.ops.wavedistill, function.__name__).default

    def __call__(self, *arguments: Tensor) -> Any:
        return (self.overload if self._suits(arguments[0]) else self.plain)(*arguments)

    def differentiate(self, backward: Callable, save: Callable | None = None) -> None:
        """Give the gradient: ``backward(ctx, *gradients)``, from what ``save(ctx, inputs, output)`` kept (inputs)."""
        torch.library.register_autograd(self.name, backward, setup_context=save or _save_inputs)

    @staticmethod
    def _suits(x: Tensor) -> bool:
        return x.is_cpu and (torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active())


def operator(fake: Callable, plain: Callable) -> Callable[[Callable], Operator]:
    """Decorator that makes an `Operator`; ``fake(*arguments)`` gives empty results of the right shapes and types."""
    return functools.partial(Operator, fake=fake, plain=plain)


def runs_at_once(x: Tensor) -> bool:
    """Whether x is on a CPU and its results are wanted without gradient, now and not as a graph."""
    if not x.is_cpu or torch.is_grad_enabled():
        return False
    return not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def computes_at_once(x: Tensor) -> bool:
    """Whether x also is of single precision."""
    return x.dtype in SINGLE and runs_at_once(x)


def _save_inputs(ctx, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)
