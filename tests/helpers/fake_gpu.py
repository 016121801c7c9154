"""A GPU that is not there: torch's fake tensors have shape, type and device, and refuse to be mixed across devices.

No kernel runs and no value exists, so code takes the branches in which values are not looked at: those of
torch.compile. torch has no backward pass for "cuda" on a machine without it; for LAZY it has one, but no autocast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
LAZY = torch.device("lazy", 0)


class FakeGpu:
    """The mode of fake tensors, and the way onto its device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Everything inside computes with fake tensors."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._mode)
            stack.enter_context(mock.patch("torch.compiler.is_compiling", lambda: True))
            for module in ("wavedistill.numerics", "wavedistill.flows.solvers.fixed_point"):  # one round of each loop
                stack.enter_context(mock.patch(f"{module}.while_loop", lambda _, body, state: body(*state)))
            stack.enter_context(mock.patch("torch.cuda.is_available", lambda: True))  # autocast asks
            stack.enter_context(mock.patch("torch.cuda.is_bf16_supported", lambda **_: True))
            if self.device.type == "lazy":
                stack.enter_context(mock.patch("torch.autocast", lambda *_, **__: contextlib.nullcontext()))
                stack.enter_context(mock.patch("torch.is_autocast_enabled", lambda _: False))
            yield

    def move(self, tree: Any) -> Any:
        """Tensors, and those of tuples, lists and dictionaries, as fake ones on the device."""
        return tree_map(lambda leaf: self._moved(leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def adopt(self, module: nn.Module) -> nn.Module:
        """The module itself, its parameters and buffers moved."""
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(self._moved(parameter.data), parameter.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = self._moved(buffer)
            self._fake_tables(part)
        return module

    def holds(self, tree: Any) -> bool:
        """Whether all tensors of the tree are on the device."""
        return all(leaf.device.type == self.device.type for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))

    def _fake_tables(self, owner: Any) -> None:
        """Constants that are no buffers, in it or in an object of ours that it holds: fake, and where they were."""
        for name, value in vars(owner).items():
            if isinstance(value, Tensor | list | tuple):
                faked = tree_map(lambda leaf: self._mode.from_tensor(leaf) if type(leaf) is Tensor else leaf, value)
                object.__setattr__(owner, name, faked)
            elif type(value).__module__.startswith("wavedistill.distributions"):
                self._fake_tables(value)

    def _moved(self, tensor: Tensor) -> Tensor:
        with self._mode:
            return self._mode.from_tensor(tensor.detach()).to(self.device)
