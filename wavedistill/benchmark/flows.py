"""Speed and exactness of the toolbox's flows beside other libraries', in one run.

Only ``flow_peers.py`` imports other flow libraries, in a process of its own, since importing zuko switches off argument
checks in torch.distributions for the whole process; ``python -m wavedistill.benchmark flows`` hands what it builds to
`run_flow_benchmark`.
"""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavedistill.benchmark.timing import machine, threads_restored
from wavedistill.files import write_json, write_text
from wavedistill.flows import AffineCoupling, AutoregressiveFlow, Compose, Condition, Reverse
from wavedistill.nn.causal_network import CausalNetwork
from wavedistill.nn.made import MADE
from wavedistill.nn.wavenet_stack import StackConfig
from wavedistill.text import markdown_table

OURS = "wavedistill"
LAYERS = 3
HIDDEN = 256
"""Every library gets this many transforms, the order reversed between them, with two hidden layers of this width."""
SLOW_SECONDS = 2.0
"""What takes longer than this is timed once."""


Map = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Contender:
    """One library's version of a flow.

    Attributes:
        module: its layers.
        forward: (module, data) -> (latent, log_det).
        inverse: (module, latent) -> (data, log_det).
    """

    module: nn.Module
    forward: Map
    inverse: Map


Build = Callable[[str, int], Contender]
"""(flow, dim) -> contender; the flow is "MAF" or "RealNVP"."""


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of one direction of a flow on a batch."""

    flow: str
    dim: int
    direction: str
    library: str
    milliseconds: float


@dataclass(frozen=True)
class Exactness:
    """Largest |x - inverse(forward(x))| in float32, and |log_det - that of the autograd Jacobian| in float64."""

    flow: str
    dim: int
    library: str
    round_trip: float
    log_det: float


@dataclass(frozen=True)
class WaveNetInverse:
    """Seconds of a WaveNet's sequential inverse.

    Attributes:
        samples: length of the signal.
        cached_seconds: with caches, as the library does it.
        naive_seconds: with a pass over the whole signal for each sample (`invert` with method "naive").
        windowed_seconds: with a pass over the receptive field for each sample. Both are extrapolated from single
            passes.
    """

    samples: int
    cached_seconds: float
    naive_seconds: float
    windowed_seconds: float


@dataclass(frozen=True)
class FlowBenchmark:
    """What `run_flow_benchmark` measured."""

    batch: int
    threads: int
    timings: list[Timing]
    exactness: list[Exactness]
    wavenet: list[WaveNetInverse]
    machine: dict[str, Any]

    def relative(self, flow: str, dim: int, direction: str) -> float:
        """Milliseconds of this library over those of the fastest other one; below 1 this library is faster."""
        times = {
            t.library: t.milliseconds for t in self.timings if (t.flow, t.dim, t.direction) == (flow, dim, direction)
        }
        others = [value for library, value in times.items() if library != OURS]
        return times[OURS] / min(others) if others else float("nan")

    @property
    def markdown(self) -> str:
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        parts = [
            self._timing_table(),
            self._error_table(),
            self._wavenet_table(),
            f"* threads {self.threads}, {machine}",
        ]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write flows.md and flows.json."""
        write_json(Path(folder) / "flows.json", asdict(self))
        write_text(Path(folder) / "flows.md", self.markdown)

    @property
    def _libraries(self) -> list[str]:
        return list(dict.fromkeys(t.library for t in self.timings))

    def _timing_table(self) -> str:
        times = {(t.flow, t.dim, t.direction, t.library): t.milliseconds for t in self.timings}
        rows = []
        for flow, dim, direction in dict.fromkeys(key[:3] for key in times):
            found = [times.get((flow, dim, direction, library)) for library in self._libraries]
            cells = ["-" if value is None else f"{value:.3g}" for value in found]
            rows.append([f"{flow}, D = {dim}, {direction}", *cells, f"{self.relative(flow, dim, direction):.3g}"])
        head = [f"ms for a batch of {self.batch}", *self._libraries, f"{OURS} / fastest other"]
        return markdown_table(head, rows)

    def _error_table(self) -> str:
        errors = {(e.flow, e.dim, e.library): e for e in self.exactness}
        kinds = {
            "round_trip": "round trip, float32",
            "log_det": "log_det against the autograd Jacobian, float64",
        }
        rows = []
        for flow, dim in dict.fromkeys(key[:2] for key in errors):
            found = [errors.get((flow, dim, library)) for library in self._libraries]
            for kind, title in kinds.items():
                cells = ["-" if one is None else f"{getattr(one, kind):.1e}" for one in found]
                rows.append([f"{flow}, D = {dim}, {title}", *cells])
        return markdown_table(["largest error", *self._libraries], rows)

    def _wavenet_table(self) -> str:
        head = ["inverse of a WaveNet", "cached, s", "naive, s", "receptive field only, s"]
        rows = [
            [f"{w.samples} samples"]
            + [f"{seconds:.3g}" for seconds in (w.cached_seconds, w.naive_seconds, w.windowed_seconds)]
            + [f"{seconds / w.cached_seconds:.0f}" for seconds in (w.naive_seconds, w.windowed_seconds)]
            for w in self.wavenet
        ]
        return markdown_table([*head, "naive / cached", "receptive field / cached"], rows)


def run_flow_benchmark(
    peers: Mapping[str, Build] | None = None,
    *,
    dims: Sequence[int] = (64, 512),
    batch: int = 1024,
    threads: int = 2,
    repeats: int = 7,
    stack: StackConfig | None = None,
    wavenet_samples: Sequence[int] = (1024, 2048, 4096),
    progress: Callable[[str], None] = lambda what: None,
) -> FlowBenchmark:
    """Time MAF and RealNVP both ways, check their exactness, and time a WaveNet's inverse.

    All libraries take turns in every repeat, so that a noisy machine disturbs them alike.

    Args:
        peers: library -> builder of its contenders.
        dims: dimensions of the vectors.
        batch: vectors at once.
        threads: of torch.
        repeats: timings of each; the median counts.
        stack: size of the WaveNet, by default that of `WaveNetConfig`.
        wavenet_samples: lengths of its inverse.
        progress: called with the name of what is measured next.
    """
    timings = []
    exactness = []
    with threads_restored(), torch.no_grad():
        torch.set_num_threads(threads)
        for flow in ("MAF", "RealNVP"):
            for dim in dims:
                progress(f"{flow}, D = {dim}")
                contenders = {}
                for library, build in {OURS: ours, **(peers or {})}.items():
                    torch.manual_seed(0)
                    contenders[library] = build(flow, dim)
                x = torch.randn(batch, dim, generator=torch.Generator().manual_seed(1))
                for direction, name in (("forward", "density"), ("inverse", "sampling")):
                    medians = _take_turns(
                        {library: partial(getattr(c, direction), c.module, x) for library, c in contenders.items()},
                        repeats,
                    )
                    timings += [Timing(flow, dim, name, library, 1e3 * seconds) for library, seconds in medians.items()]
                exactness += [_exactness(flow, dim, library, c, x[:8]) for library, c in contenders.items()]
        progress("inverse of a WaveNet")
        wavenet = _wavenet_inverse(stack or StackConfig(), wavenet_samples)
    return FlowBenchmark(batch, threads, timings, exactness, wavenet, machine())


def ours(flow: str, dim: int) -> Contender:
    """This library's MAF or RealNVP."""
    layers: list = []
    for index in range(LAYERS):
        if flow == "MAF":
            layers += [AutoregressiveFlow(MADE(dim, hidden=HIDDEN, num_layers=2)), Reverse(dim)]
        else:
            layers.append(AffineCoupling(dim, swap=bool(index % 2), network=_Perceptron(dim)))
    transform = Compose(*layers).eval()
    with torch.no_grad():
        for parameter in transform.parameters():  # last layers begin at zero: an identity would be exact for free
            parameter.add_(0.01 * torch.randn_like(parameter))
    return Contender(transform, lambda module, x: module.forward(x), lambda module, z: module.inverse(z))


class _Perceptron(nn.Sequential):
    """The network that the other libraries use in their couplings; this library's has dearer activations."""

    def __init__(self, dim: int) -> None:
        half = dim // 2
        super().__init__(
            nn.Linear(half, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * half)
        )

    def forward(self, kept: Tensor, cond: Any) -> Tensor:
        return super().forward(kept)


def _take_turns(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each run.

    Every round runs all of them once, in another order each time: what ran before leaves caches and memory in a state
    of its own. The first round warms up and counts for slow runs only.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name in random.Random(round_).sample([*runs], len(runs)):
            if round_ and times[name][0] > SLOW_SECONDS:
                continue
            times[name].append(_seconds(runs[name]))
    return {name: statistics.median(found[1:] or found) for name, found in times.items()}


def _exactness(flow: str, dim: int, library: str, contender: Contender, x: Tensor) -> Exactness:
    latent = contender.forward(contender.module, x)[0]
    back = contender.inverse(contender.module, latent)[0]
    module = copy.deepcopy(contender.module).double()
    one = x[:1].double()
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(lambda value: contender.forward(module, value)[0], one)
    expected = torch.linalg.slogdet(jacobian.reshape(dim, dim)).logabsdet
    log_det = contender.forward(module, one)[1][0]
    return Exactness(flow, dim, library, float((back - x).abs().max()), float((log_det - expected).abs()))


def _wavenet_inverse(stack: StackConfig, lengths: Sequence[int]) -> list[WaveNetInverse]:
    """Noise -> waveform through one autoregressive flow with a WaveNet, without a condition."""
    torch.manual_seed(0)
    flow = AutoregressiveFlow(CausalNetwork(2, stack, 0, 0)).eval()
    window = torch.randn(1, stack.receptive_field, generator=torch.Generator().manual_seed(0))

    def one_pass(x: Tensor) -> float:
        return statistics.median(_seconds(lambda: flow.loc_scale(x, Condition())) for _ in range(5))

    one_pass(window)  # a warm-up
    flow.inverse(window[:, None, :64])
    found = []
    for samples in lengths:
        z = torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(1))
        cached = statistics.median(_seconds(lambda z=z: flow.inverse(z)) for _ in range(3))
        found.append(WaveNetInverse(samples, cached, samples * one_pass(z[:, 0]), samples * one_pass(window)))
    return found


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
