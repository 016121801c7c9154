"""The state of a stream as a list of tensors.

A stream's stages keep what they remember in objects of this package, in tuples and in lists, which hold one another:
a tree. Its leaves are tensors, and numbers, modules and functions, which are no state.

Example:
    >>> import torch
    >>> from wavedistill.dsp.memory import Past
    >>> from wavedistill.inference.state_tree import replaced, tensors
    >>> past = Past(2)
    >>> _ = past.join(torch.tensor([[1, 2, 3]]))
    >>> other = replaced([past, 5], [torch.tensor([[7, 8]])])
    >>> other[0].join(torch.tensor([[9]])), tensors([past, 5])
    (tensor([[7, 8, 9]]), [tensor([[2, 3]])])
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def tensors(state: Any) -> list[Tensor]:
    """All tensors of a tree, in a fixed order."""
    return [leaf for leaf in _leaves(state) if isinstance(leaf, Tensor)]


def form(state: Any) -> list[Any]:
    """The leaves of a tree, shapes and types in place of the tensors."""
    return [(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in _leaves(state)]


def replaced(state: Any, values: Iterable[Tensor]) -> Any:
    """A copy of a tree with these tensors, in the order of `tensors`, in the place of its own."""
    values = iter(values)
    if isinstance(state, Tensor):
        return next(values)
    new = [replaced(part, values) for part in _parts(state)]
    if not new:
        return state
    if isinstance(state, tuple):
        return type(state)(*new) if hasattr(state, "_fields") else tuple(new)
    if isinstance(state, list):
        return new
    changed = copy.copy(state)
    vars(changed).update(zip(vars(state), new, strict=True))
    return changed


def _leaves(state: Any) -> Iterator[Any]:
    parts = _parts(state)
    for part in parts:
        yield from _leaves(part)
    if not parts:
        yield state


def _parts(state: Any) -> list[Any]:
    """What a node of the tree holds; nothing for a leaf."""
    if isinstance(state, (tuple, list)):
        return list(state)
    ours = type(state).__module__.startswith("wavedistill.") and not callable(state)
    return list(vars(state).values()) if ours else []
