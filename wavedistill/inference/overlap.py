"""Three steps of a long job at the same time: reading the next part, computing this one, writing the last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


def overlapped(
    parts: Iterable[Part],
    read: Callable[[Part], Loaded],
    compute: Callable[[Loaded], Result],
    write: Callable[[Result], None],
) -> None:
    """``write(compute(read(part)))`` for each part, in order.

    ``read`` and ``write`` have a thread each, ``compute`` runs in the caller's. At most three parts are in memory: one
    read, one computed, one written.

    An error of any step is raised here and stops the job: what was computed before it is still written, the part read
    ahead is dropped. An error of ``write`` is seen when the part being computed meanwhile is done. When this returns or
    raises, Ctrl-C included, both threads have ended and no ``write`` was cut short.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        queue = iter(parts)
        reading = _submit_next(reader, read, queue)
        writing = None
        while reading is not None:
            loaded = reading.result()
            reading = _submit_next(reader, read, queue)
            result = compute(loaded)
            if writing is not None:
                writing.result()
            writing = writer.submit(write, result)
        if writing is not None:
            writing.result()


def _submit_next(pool: ThreadPoolExecutor, function: Callable, queue: Iterable) -> Future | None:
    for part in queue:
        return pool.submit(function, part)
    return None
