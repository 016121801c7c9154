"""Backpropagation through a stack of bijections in memory that does not grow with its depth.

The forward pass keeps only the stack's output. The backward pass goes from the last layer to the first: it finds a
layer's input with the layer's own inverse, runs the layer once more with gradient, and lets go of both before the next.

References:
    The Reversible Residual Network: Backpropagation Without Storing Activations (Gomez et al., 2017),
        https://arxiv.org/abs/1707.04585
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from wavedistill.errors import WavedistillError
from wavedistill.flows.normalization import InvertibleBatchNorm
from wavedistill.flows.transform import Compose, Mapped, Transform, call_with, require_tensor
from wavedistill.numerics import refuse_second_derivative, under_torch_func


class ReversibleSequence(Compose):
    """Transforms one after another, as `Compose`, whose backward pass recomputes what `Compose` stores.

    Values, log-determinants and gradients (by the value, the condition and every parameter, in both directions) are
    those of `Compose`, and so is the state dict. A training step takes two more evaluations of every layer; its memory
    is that of one layer and of the stack's output. Without gradient, under `torch.compile` and under the transforms of
    `torch.func` (vmap, grad, hessian) it runs as `Compose` does.

    Each layer must be a function of its input, its condition and its parameters: layers that draw random numbers or
    keep statistics of the batch in training (dropout, batch normalisation) are refused there. Gradients are of first
    order only, and as exact as the stack's round trip: their relative error was 4e-7 in float32 with 32 couplings whose
    round trip was good to 7e-7. A stack that does not find its input again does not find its gradient either.

    References:
        The Reversible Residual Network: Backpropagation Without Storing Activations (Gomez et al., 2017),
            https://arxiv.org/abs/1707.04585
        Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018),
            https://arxiv.org/abs/1807.03039

    Args:
        transforms: layers in the order data -> latent.

    Shapes:
        those of the layers.

    Raises:
        WavedistillError: in training, for a layer with dropout or running statistics; its name is said. And for a
            second derivative.

    Example:
        >>> import torch
        >>> from wavedistill.flows import AffineCoupling, ReversibleSequence
        >>> flow = ReversibleSequence(*(AffineCoupling(2, swap=bool(layer % 2)) for layer in range(8)))
        >>> z, log_det = flow.forward(torch.randn(4, 2))
        >>> (0.5 * z.square().sum(1) - log_det).mean().backward()
        >>> flow[0].network.output.weight.grad.shape
        torch.Size([2, 64, 1])
    """

    def forward(self, x: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        if self._plain():
            return super().forward(x, cond, per_step)
        self._check_repeatable()
        return _recomputed(list(self.transforms), x, cond, per_step)

    def inverse(self, y: Tensor, cond: Any = None, per_step: bool = False) -> Mapped:
        if self._plain():
            return super().inverse(y, cond, per_step)
        self._check_repeatable()
        return _recomputed([layer.inv for layer in reversed(self.transforms)], y, cond, per_step)

    def _check_repeatable(self) -> None:
        """Refuse layers that would not do the same a second time."""
        for name, module in self.named_modules():
            random = isinstance(module, _DropoutNd) and module.p > 0.0
            keeps = isinstance(module, InvertibleBatchNorm) or getattr(module, "track_running_stats", False)
            if module.training and (random or keeps):
                fault = "draw other numbers" if random else "count a batch twice"
                raise WavedistillError(
                    f"ReversibleSequence runs its layers again in the backward pass, and {name} "
                    f"({type(module).__name__}) would then {fault}: use Compose, take the layer out, or put it into "
                    "eval mode."
                )

    def _plain(self) -> bool:
        """Nothing would be stored, or a function with its own backward pass cannot be traced."""
        return torch.compiler.is_compiling() or not torch.is_grad_enabled() or under_torch_func() or not len(self)


def _recomputed(steps: list[Transform], x: Tensor, cond: Any, per_step: bool) -> Mapped:
    require_tensor(x, ReversibleSequence)
    leaves, structure = tree_flatten(cond)
    named = [dict(step.named_parameters()) for step in steps]
    plan = _Plan(
        steps,
        [list(one) for one in named],
        [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves],
        structure,
        per_step,
        _Autocast(x.device.type, torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type)),
    )
    of_cond = (leaf for leaf in leaves if isinstance(leaf, Tensor))
    return Mapped(*_Recompute.apply(plan, x, *of_cond, *(value for one in named for value in one.values())))


_TENSOR = object()
"""Stands for a tensor of the condition: those are handed to autograd one by one."""


class _Autocast(NamedTuple):
    """The state of autocast, to be repeated in the backward pass."""

    device: str
    enabled: bool
    dtype: torch.dtype

    def again(self) -> torch.autocast:
        """Without the cache, which would keep copies of every layer's weights, made without gradient."""
        return torch.autocast(self.device, self.dtype, self.enabled, cache_enabled=False)


class _Plan(NamedTuple):
    """What `_Recompute` has to do, without the tensors that it finds gradients for.

    Those come in order: the condition's, then each step's parameters.
    """

    steps: list[Transform]
    names: list[list[str]]
    leaves: list[Any]
    structure: TreeSpec
    per_step: bool
    autocast: _Autocast

    def unpack(self, tensors: Iterable[Tensor]) -> tuple[list[Tensor], list[list[Tensor]]]:
        rest = iter(tensors)
        of_cond = [next(rest) for leaf in self.leaves if leaf is _TENSOR]
        return of_cond, [[next(rest) for _ in names] for names in self.names]

    def condition(self, of_cond: list[Tensor]) -> Any:
        rest = iter(of_cond)
        return tree_unflatten([next(rest) if leaf is _TENSOR else leaf for leaf in self.leaves], self.structure)


class _Recompute(torch.autograd.Function):
    """The chain of ``plan.steps``.

    Parameters are arguments, so that whatever `functional_call` puts in their place gets its gradient.
    """

    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        of_cond, _ = plan.unpack(tensors)
        with plan.autocast.again():
            chained = Compose._chain(x, [step.forward for step in plan.steps], plan.condition(of_cond), plan.per_step)
        ctx.plan = plan
        ctx.save_for_backward(chained.value, *tensors)
        return tuple(chained)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("ReversibleSequence", "take Compose, or torch.func")
        plan = ctx.plan
        (value, *tensors) = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        of_cond, parameters = plan.unpack(
            tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)
        )
        cond_grads: list[Tensor | None] = [None] * len(of_cond)
        parameter_grads: list[Tensor | None] = []
        for index in reversed(range(len(plan.steps))):
            value, (grad, *found) = _back(plan, index, value, of_cond, parameters[index], (grad, grad_log_det))
            cond_grads = [_sum(*both) for both in zip(cond_grads, found[: len(of_cond)], strict=True)]
            parameter_grads = found[len(of_cond) :] + parameter_grads
        return None, grad, *cond_grads, *parameter_grads


def _back(
    plan: _Plan,
    index: int,
    output: Tensor,
    of_cond: list[Tensor],
    parameters: list[Tensor],
    grads: tuple[Tensor, Tensor],
) -> tuple[Tensor, list[Tensor | None]]:
    """One step backwards: its input, gradients by it, the condition's tensors and the step's parameters."""
    step = plan.steps[index]
    cond = plan.condition(of_cond)
    named = dict(zip(plan.names[index], parameters, strict=True))
    with plan.autocast.again():
        with torch.no_grad():
            value = call_with(step, named, step.inverse, output, cond).value
        value = value.detach().requires_grad_()
        with torch.enable_grad():
            mapped = call_with(step, named, step.forward, value, cond, plan.per_step)
    outputs, of_outputs = zip(
        *((out, grad.to(out.dtype)) for out, grad in zip(mapped, grads, strict=True) if out.requires_grad), strict=True
    )
    inputs = [tensor for tensor in (value, *of_cond, *parameters) if tensor.requires_grad]
    found = iter(torch.autograd.grad(outputs, inputs, of_outputs, allow_unused=True))
    return value.detach(), [next(found) if t.requires_grad else None for t in (value, *of_cond, *parameters)]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
