"""Compiled loops on several threads: each takes a share of the rows.

torch shares its own operations among threads; a loop compiled by numba runs on one, and gives way to others meanwhile.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def in_shares(work: Callable[[int, int], None], count: int, least: int) -> None:
    """Call ``work(first, last)`` for shares that make up range(count), at once on as many threads as torch uses.

    Args:
        work: must not depend on how the rows are shared, and release the interpreter's lock (numba's ``nogil``).
        least: rows that are worth a thread, which costs about 0.05 ms.
    """
    shares = min(torch.get_num_threads(), count // least)
    if shares < 2:
        work(0, count)
        return
    edges = [count * share // shares for share in range(shares + 1)]
    others = [_threads(shares - 1).submit(work, *ends) for ends in itertools.pairwise(edges[1:])]
    work(0, edges[1])
    for other in others:
        other.result()


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="wavedistill")


if hasattr(os, "register_at_fork"):  # a forked process has no threads of its parent's
    os.register_at_fork(after_in_child=_threads.cache_clear)
