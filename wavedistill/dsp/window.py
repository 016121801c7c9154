"""A part of a sequence together with the steps around it that it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from torch import Tensor

Parts = TypeVar("Parts", bound=NamedTuple)


@dataclass(frozen=True, eq=False)
class Window:
    """A value with ``margin`` more steps on either side than are wanted: the context of those between.

    Attributes:
        value: (batch, steps, ...), or with the steps on another ``axis``.
        margin: steps of context on either side.
        axis: of the steps.

    Example:
        >>> import torch
        >>> from wavedistill.dsp.window import Window
        >>> window = Window(torch.arange(8).unsqueeze(0), margin=2)
        >>> window.trim()
        tensor([[2, 3, 4, 5]])
    """

    value: Tensor
    margin: int
    axis: int = 1

    def trim(self) -> Tensor:
        """The value without its margins."""
        end = self.value.shape[self.axis] - self.margin
        return self.value[(*(slice(None),) * self.axis, slice(self.margin, end))]


def trim_parts(parts: Parts, margin: int) -> Parts:
    """A named tuple of tensors (batch, steps, ...), each without ``margin`` steps on either side."""
    return type(parts)(*(Window(part, margin).trim() for part in parts))
