"""One function over many small tasks, in several processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Counted(Generic[Result]):
    """Results that come one by one, and how many there will be: a progress bar shows the total."""

    results: Iterator[Result]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)


@contextmanager
def over_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Counted[Result]]:
    """The results of ``function`` in the order of ``tasks``, by up to ``workers`` processes; by this one if that is 1.

    Leaving the context early, by Ctrl-C for example, leaves the remaining tasks undone.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        with _one_thread():
            yield Counted(map(function, tasks), len(tasks))
        return
    # Not fork: torch's threads do not survive it.
    with ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
    ) as pool:
        try:
            yield Counted(pool.map(function, tasks, chunksize=4), len(tasks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's process would wait for ever for tasks of a parent that was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small tasks are too little for several threads, which wait for each other at full speed: three times the
    processor time, measured on two cores, and more on more.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
