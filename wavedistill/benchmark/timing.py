"""Fair timings: systems take turns, medians after a warm-up, and what the machine could do at best."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

GEMM_SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
GEMM_SECONDS = 0.1
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Setting(NamedTuple):
    """Where something is computed: a device, and on the CPU the number of threads."""

    device: str
    threads: int

    @property
    def title(self) -> str:
        """For a table: "2 threads", or the device's name."""
        return f"{self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else self.device


@dataclass(frozen=True)
class Timing:
    """Median ``seconds`` of ``repeats`` runs, and what the last of them returned."""

    seconds: float
    repeats: int
    result: Any


def interleaved(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    budget: float,
    device: str = "cpu",
    warm_ups: Sequence[Callable[[], Any]] | None = None,
) -> dict[str, Timing]:
    """Time every run ``repeats`` times in turns (a, b, a, b, ...), so that a noisy machine disturbs them alike.

    Before that ``warm_ups`` are called, by default each of the runs once. One whose timed calls have taken ``budget``
    seconds is not repeated any more.
    """
    for run in runs.values() if warm_ups is None else warm_ups:
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            if not times[name] or sum(times[name]) < budget:
                synchronize(device)
                start = time.perf_counter()
                results[name] = run()
                synchronize(device)
                times[name].append(time.perf_counter() - start)
    return {name: Timing(statistics.median(found), len(found), results[name]) for name, found in times.items()}


def synchronize(device: str) -> None:
    """Wait until the GPU has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def gemm_peak(device: str, precision: str) -> float:
    """Multiply-adds per second of the fastest square matrix product found, with torch's present number of threads."""
    best = 0.0
    for size in GEMM_SIZES[device.split(":")[0]]:
        a, b = (torch.randn(size, size, device=device).to(PRECISIONS[precision]) for _ in range(2))
        out = a @ b
        end = time.perf_counter() + GEMM_SECONDS
        while (start := time.perf_counter()) < end:
            torch.matmul(a, b, out=out)
            synchronize(device)
            best = max(best, size**3 / (time.perf_counter() - start))
    return best


def peak_memory(run: Callable[[], Any], device: str = "cpu") -> float | None:
    """Most memory that ``run`` needs beside what the process (or the GPU's allocator) holds already, in MB.

    On the CPU the kernel's high-water mark is set back first, which Linux can; None elsewhere.
    """
    gc.collect()
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process keeps would be used again unseen
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        run()
        return max(0.0, _status("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def _status(field: str) -> float:
    """A field of /proc/self/status in MB."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def machine() -> dict[str, Any]:
    """The processor, its cores and the versions that matter to speed; the GPU, where there is one."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    found = {
        "cpu": name,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if keeps := os.environ.get(
        "MALLOC_TRIM_THRESHOLD_"
    ):  # freed memory is not given back: nobody is timed getting it anew
        found["MALLOC_TRIM_THRESHOLD_"] = keeps
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """Sets torch's number of threads back at the end."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
