"""Batches fetched by a background thread while the current step computes."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from wavedistill.data.dataset import Batch


class Prefetcher:
    """``fetch(index)`` for index = first, first + 1, ..., computed ahead of time in one thread.

    Args:
        fetch: makes the batch of an index, on the CPU. It must not use torch's global generator.
        first: the first index.
        device: where batches are moved to.
        depth: how many finished batches may wait.
    """

    def __init__(self, fetch: Callable[[int], Batch], first: int, device: torch.device, depth: int = 2) -> None:
        self._fetch = fetch
        self._first = first
        self._device = device
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def next(self) -> Batch:
        """The next batch, on the device. An error of ``fetch`` is raised here."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return map_tensors(item, lambda tensor: tensor.to(self._device, non_blocking=True))

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(timeout=0.05)

    def _work(self) -> None:
        index = self._first
        while not self._closed.is_set():
            try:
                item = self._fetch(index)
                if self._device.type == "cuda":
                    item = map_tensors(item, torch.Tensor.pin_memory)
            except BaseException as error:  # handed over to the thread that waits for it
                item = error
            self._queue.put(item)
            if isinstance(item, BaseException):
                return
            index += 1


def map_tensors(batch: Batch, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The batch with ``function`` applied to each of its tensors."""
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return dataclasses.replace(batch, **{k: function(v) for k, v in values.items() if isinstance(v, torch.Tensor)})
