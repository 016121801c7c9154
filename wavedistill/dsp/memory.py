"""What a stage of a stream remembers between chunks: steps that it sees again, and values that wait for others."""

from __future__ import annotations

import torch
from torch import Tensor


class Past:
    """The last ``length`` steps of all that was given.

    A stage that sees so many steps around each one gets them from here, so that a chunk costs its own length.

    Args:
        length: steps, at least 1.
        axis: of the steps.

    Example:
        >>> import torch
        >>> from wavedistill.dsp.memory import Past
        >>> past = Past(2)
        >>> past.join(torch.tensor([[1, 2, 3]])), past.join(torch.tensor([[4]]))
        (tensor([[1, 2, 3]]), tensor([[2, 3, 4]]))
    """

    def __init__(self, length: int, axis: int = 1) -> None:
        self.length = length
        self.axis = axis
        self.value: Tensor | None = None

    def join(self, x: Tensor) -> Tensor:
        """What is remembered with x after it."""
        joined = x if self.value is None else torch.cat([self.value, x], dim=self.axis)
        last = (*(slice(None),) * self.axis, slice(-self.length, None))
        self.value = joined[last].clone()  # a view would hold all of the chunk
        return joined


class Queue:
    """Steps (batch, steps, ...) that are taken in the order in which they came.

    Example:
        >>> import torch
        >>> from wavedistill.dsp.memory import Queue
        >>> queue = Queue()
        >>> queue.put(torch.tensor([[1, 2]]))
        >>> queue.put(torch.tensor([[3, 4]]))
        >>> queue.take(3), queue.steps
        (tensor([[1, 2, 3]]), 1)
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None

    @property
    def steps(self) -> int:
        return 0 if self.value is None else self.value.shape[1]

    def put(self, x: Tensor) -> None:
        self.value = x if not self.steps else torch.cat([self.value, x], dim=1)

    def take(self, steps: int) -> Tensor:
        """The first ``steps``, or all where there are fewer."""
        taken = self.value[:, :steps]
        self.value = self.value[:, steps:].clone()
        return taken
