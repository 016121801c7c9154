"""What a benchmark of students and vocoders found, as tables and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wavedistill.benchmark.systems import Speed, StreamSpeed
from wavedistill.benchmark.teacher import (
    CACHED,
    NAIVE,
    OURS,
    PLAIN,
    PLAIN_NETWORK,
    SamplerSpeed,
    TrainingSpeed,
    speed_ups,
)
from wavedistill.benchmark.timing import Setting
from wavedistill.files import write_json, write_text
from wavedistill.text import markdown_table


@dataclass(frozen=True)
class GemmPeak:
    """Multiply-adds per second of the fastest matrix product measured in this run."""

    device: str
    threads: int
    precision: str
    macs_per_second: float


@dataclass(frozen=True)
class Cost:
    """What a system needs.

    Attributes:
        system, group: its name; "student", "peer" or "teacher".
        sample_rate: of its audio, Hz.
        parameters: weights, in millions.
        gmacs_per_second: 10^9 multiply-adds per second of audio.
        uncounted: custom operators whose work is not in that.
        memory_mb: device -> memory beside the weights that it takes for ``memory_seconds`` of audio, where it was
            measured.
        note: what a reader must know about the system.
    """

    system: str
    group: str
    sample_rate: int
    parameters: float
    gmacs_per_second: float
    uncounted: list[str]
    memory_mb: dict[str, float]
    memory_seconds: float
    note: str = ""


@dataclass(frozen=True)
class BenchmarkResult:
    """What `run_benchmark` measured.

    Attributes:
        speeds: of students and peers.
        streams: latency of the students.
        samplers: of the teacher.
        training: speed of training steps.
        costs: arithmetic, weights and memory.
        peaks: of matrix products.
        missing: systems that could not take part, and why.
        machine: what it was measured on.
    """

    speeds: list[Speed] = field(default_factory=list)
    streams: list[StreamSpeed] = field(default_factory=list)
    samplers: list[SamplerSpeed] = field(default_factory=list)
    training: list[TrainingSpeed] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    peaks: list[GemmPeak] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> list[Setting]:
        return list(dict.fromkeys(Setting(s.device, s.threads) for s in self.samplers))

    def best(self, system: str, device: str) -> float:
        """x real time of one clip, the longest measured, with the number of threads that is fastest."""
        single = [s for s in self.speeds if s.system == system and s.device == device and s.batch == 1]
        longest = max(s.audio_seconds for s in single)
        return max(s.real_time for s in single if s.audio_seconds == longest)

    def ratios(self, device: str) -> dict[str, float]:
        """Student -> its rate (`best`) over that of the teacher's cached sampler, each with its best threads."""
        students = dict.fromkeys(s.system for s in self.speeds if s.group == "student" and s.device == device)
        cached = max(s.real_time for s in self.samplers if s.sampler == CACHED and s.device == device)
        return {name: self.best(name, device) / cached for name in students}

    @property
    def ratio(self) -> float:
        """The fastest student over the cached teacher, on the first device."""
        return max(self.ratios(self.settings[0].device).values())

    @property
    def markdown(self) -> str:
        parts = [self._synthesis(), self._streams(), self._samplers(), self._training(), self._costs(), self._notes()]
        return "\n".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        return {"ratio": self.ratio, **asdict(self)}

    def save(self, folder: str | Path) -> None:
        """Write benchmark.md and benchmark.json."""
        write_json(Path(folder) / "benchmark.json", self.to_json())
        write_text(Path(folder) / "benchmark.md", self.markdown)

    def _synthesis(self) -> str:
        columns = list(dict.fromkeys((Setting(s.device, s.threads), s.batch, s.audio_seconds) for s in self.speeds))
        rates = {s.system: s.sample_rate for s in self.speeds}
        cells = {
            (s.system, Setting(s.device, s.threads), s.batch, s.audio_seconds): _figure(s.real_time)
            for s in self.speeds
        }
        head = ["x real time", "kHz"] + [
            f"{where.title}, {_amount(batch, seconds)}" for where, batch, seconds in columns
        ]
        rows = [
            [name, f"{rates[name] / 1000:g}", *(cells.get((name, *column), "-") for column in columns)]
            for name in dict.fromkeys(s.system for s in self.speeds)
        ]
        return _table(head, rows)

    def _streams(self) -> str:
        head = ["stream", "computed with", "chunk, ms", "look-ahead, ms", "first chunk after, ms", "x real time"]
        rows = [
            [
                s.system,
                Setting(s.device, s.threads).title,
                f"{1000 * s.chunk_seconds:.0f}",
                f"{s.look_ahead_ms:.0f}",
                _figure(s.first_chunk_ms),
                _figure(s.real_time),
            ]
            for s in self.streams
        ]
        return _table(head, rows)

    def _samplers(self) -> str:
        head = [
            "sampling from the teacher",
            "computed with",
            "sweeps",
            "passes",
            "x real time",
            "/ naive",
            "/ plain loop",
            "/ cached",
        ]
        against = [speed_ups(self.samplers, reference) for reference in (NAIVE, PLAIN, CACHED)]
        rows = [
            [s.sampler, Setting(s.device, s.threads).title, _maybe(s.sweeps), _maybe(s.passes), _figure(s.real_time)]
            + [_figure(ratios[s.sampler, s.device, s.threads]) for ratios in against]
            for s in self.samplers
        ]
        return _table(head, rows)

    def _training(self) -> str:
        found = {(t.task, t.device, t.threads, t.precision, t.network): t.samples_per_second for t in self.training}
        rows = []
        for task, device, threads, precision in dict.fromkeys(key[:4] for key in found):
            ours = found[task, device, threads, precision, OURS]
            plain = found.get((task, device, threads, precision, PLAIN_NETWORK))
            compared = ["-", "-"] if plain is None else [f"{plain:.0f}", f"{ours / plain:.3g}"]
            rows.append([task, Setting(device, threads).title, precision, f"{ours:.0f}", *compared])
        return _table(
            ["training, samples/s", "computed with", "precision", "ours", "plain conv1d", "ours / plain"], rows
        )

    def _costs(self) -> str:
        where = [s for s in self.settings if s.device == "cpu"][-1:] or self.settings[-1:]
        setting = where[0]
        peaks = {p.precision: p.macs_per_second for p in self.peaks if (p.device, p.threads) == setting}
        devices = list(dict.fromkeys(s.device for s in self.settings))
        head = ["cost", "weights, M", "GMAC per s of audio", *(f"memory, MB ({d})" for d in devices)]
        head += [f"GMAC/s reached, {setting.title}", *(f"of {precision} peak" for precision in peaks)]
        rows = []
        for cost in self.costs:
            more = "+" if cost.uncounted else ""
            row = [cost.system, f"{cost.parameters:.2f}", f"{cost.gmacs_per_second:.3g}{more}"]
            row += [f"{cost.memory_mb[d]:.0f}" if d in cost.memory_mb else "-" for d in devices]
            rate = self._rate(cost, setting)
            if rate is None:
                rows.append([*row, *["-"] * (1 + len(peaks))])
                continue
            reached = cost.gmacs_per_second * rate
            rows.append([*row, _figure(reached), *(f"{100 * 1e9 * reached / peak:.3g} %" for peak in peaks.values())])
        return _table(head, rows)

    def _rate(self, cost: Cost, setting: Setting) -> float | None:
        """x real time of one clip in this setting, the longest; of the cached sampler for the teacher."""
        if cost.group == "teacher":
            return next(s.real_time for s in self.samplers if s.sampler == CACHED and (s.device, s.threads) == setting)
        single = [
            s for s in self.speeds if s.system == cost.system and s.batch == 1 and (s.device, s.threads) == setting
        ]
        return max(single, key=lambda s: s.audio_seconds).real_time if single else None

    def _notes(self) -> str:
        lines = []
        for device in dict.fromkeys(s.device for s in self.settings):
            for name, ratio in self.ratios(device).items():
                lines.append(
                    f"{name} is {_figure(ratio)} times as fast as the teacher's cached sampler ({device}, one "
                    "clip, each with the threads it is fastest with)."
                )
        lines += [f"{cost.system}: {cost.note}." for cost in self.costs if cost.note]
        uncounted = sorted({name for cost in self.costs for name in cost.uncounted})
        lines += [f"+: without the work of {', '.join(uncounted)}."] if uncounted else []
        lines += [
            f"Memory beside the weights, for {seconds:.3g} s of audio."
            for seconds in sorted({c.memory_seconds for c in self.costs if c.memory_mb})[-1:]
        ]
        lines += [
            (
                f"Matrix product peak, {Setting(p.device, p.threads).title}, {p.precision}: "
                f"{p.macs_per_second / 1e9:.4g} GMAC/s."
            )
            for p in self.peaks
        ]
        lines += self.missing
        lines += [
            "Medians of repeats after a warm-up, the systems in turns. "
            + ", ".join(f"{name} {value}" for name, value in self.machine.items())
            + "."
        ]
        return "\n".join(f"* {line}" for line in lines) + "\n"


def _amount(batch: int, seconds: float) -> str:
    return f"{seconds:g} s" if batch == 1 else f"{batch} x {seconds:g} s"


def _figure(value: float) -> str:
    """Three digits, or all of a larger whole number."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _maybe(count: float | None) -> str:
    return "" if count is None else f"{count:.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table and a line break; nothing without rows."""
    return f"{markdown_table(head, rows)}\n" if rows else ""
