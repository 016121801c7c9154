"""`wavedistill playground`: every flow family on every density, as a table and as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wavedistill.errors import WavedistillError
from wavedistill.files import read_json, write_json, write_text
from wavedistill.playground.animation import animate_layers
from wavedistill.playground.densities import DENSITIES
from wavedistill.playground.families import FAMILIES
from wavedistill.playground.fit import find, fit_density
from wavedistill.playground.pictures import plot_layers
from wavedistill.playground.stages import warp_stages
from wavedistill.text import markdown_table, mean_and_error

TABLE_DENSITIES = ("two_moons", "checkerboard", "rings")
_VERSION = 1  # of densities and families: stored results of another version are computed again


@dataclass
class PlaygroundReport:
    """What `run_playground` found. ``markdown`` for people, ``to_json()`` for programs.

    Attributes:
        densities: names, the table's columns.
        results: one `Fit.to_json` for each pair that was trained, by (family, density).
        failures: why a family could not be trained.
    """

    densities: list[str]
    results: dict[tuple[str, str], dict[str, Any]]
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def markdown(self) -> str:
        """The table, one row a family."""
        head = ["family", "layers", "parameters", *(DENSITIES[name].title for name in self.densities), "CPU s"]
        rows = [["**entropy**", "", "", *(f"**{DENSITIES[name].entropy:.3f}**" for name in self.densities), ""]]
        for family in dict.fromkeys(family for family, _ in self.results):
            fits = [self.results.get((family, name)) for name in self.densities]
            known = [fit for fit in fits if fit]
            depths, sizes = (
                [str(value) for value in sorted({fit[key] for fit in known})] for key in ("depth", "parameters")
            )
            seconds = sum(fit["cpu_seconds"] for fit in known) / len(known)
            rows.append(
                [FAMILIES[family].title, "/".join(depths), "/".join(sizes), *map(_cell, fits), f"{seconds:.0f}"]
            )
        lines = [
            markdown_table(head, rows),
            "",
            (
                "* Negative log-likelihood of 10,000 held-out samples in nats ± standard error; the density's entropy "
                "is the lower bound."
            ),
            "* In brackets KL(density ‖ flow) on the same samples: how far the flow is from the density itself.",
            "* CPU s: processor time of one training, the mean over the densities.",
        ]
        lines += [f"* {family}: {reason}" for family, reason in self.failures.items()]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        return {
            "entropy": {name: DENSITIES[name].entropy for name in self.densities},
            "results": [
                {key: value for key, value in fit.items() if key != "history"} for fit in self.results.values()
            ],
            "failures": self.failures,
        }

    def save(self, folder: str | Path) -> None:
        """Write table.md and table.json."""
        write_json(Path(folder) / "table.json", self.to_json())
        write_text(Path(folder) / "table.md", self.markdown)


def run_playground(
    out: str | Path,
    densities: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
    depth: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> PlaygroundReport:
    """Train each family on each density; write results, pictures and the table.

    For each pair ``DENSITY-FAMILY.json`` (numbers and training curve), ``.png`` (`plot_layers`) and ``.gif``
    (`animate_layers`); then ``table.md`` and ``table.json``. A pair whose results are there, made with the same depth,
    steps and seed, is not trained again.

    Args:
        out: the folder.
        densities: keys of `DENSITIES`; None: two moons, checkerboard and rings.
        families: keys of `FAMILIES`; None: all.
        depth: layers; None: each family's own.
        steps: of the optimiser; None: each family's own.
        seed: of weights and batches.
        progress: show a bar on stderr.

    Raises:
        WavedistillError: for an unknown name, a number out of range, or if no family at all could be trained.
    """
    densities = list(dict.fromkeys(densities or TABLE_DENSITIES))
    families = list(dict.fromkeys(families or FAMILIES))
    for name in densities:
        find(DENSITIES, name, "density")
    for name in families:
        find(FAMILIES, name, "flow family")
    report = PlaygroundReport(densities, {})
    pairs = [(family, density) for family in families for density in densities]
    with tqdm(pairs, unit="fit", dynamic_ncols=True, disable=not progress) as bar:
        for family, density in bar:
            bar.set_postfix_str(f"{family} on {density}")
            if family in report.failures:
                continue
            try:
                report.results[family, density] = _pair(Path(out), family, density, depth, steps, seed)
            except WavedistillError as error:
                report.failures[family] = str(error)
    if not report.results:
        raise WavedistillError(next(iter(report.failures.values())))
    report.save(out)
    return report


def _pair(out: Path, family: str, density: str, depth: int | None, steps: int | None, seed: int) -> dict[str, Any]:
    """The stored result, or a new one."""
    kind = FAMILIES[family]
    stem = out / f"{density}-{family}"
    paths = [stem.with_suffix(suffix) for suffix in (".json", ".png", ".gif")]
    settings = {
        "version": _VERSION,
        "depth": kind.depth if depth is None else depth,
        "steps": kind.steps if steps is None else steps,
        "seed": seed,
    }
    if all(path.is_file() for path in paths):
        stored = read_json(paths[0])
        if {name: stored.get(name) for name in settings} == settings:
            return stored
    fit = fit_density(family, density, depth, steps, seed)
    title = f"{kind.title} on {DENSITIES[density].title}"
    stages = warp_stages(fit.flow)
    numbers = f"{fit.nats:.3f} nats, entropy {fit.entropy:.3f}"
    plot_layers(fit.flow, paths[1], DENSITIES[density], stages, f"{title}: {numbers}")
    animate_layers(fit.flow, paths[2], stages, title)
    result = {"version": _VERSION, **fit.to_json()}
    write_json(paths[0], result)  # last: a pair with it is finished
    return result


def _cell(fit: dict[str, Any] | None) -> str:
    if fit is None:
        return "-"
    if fit["nats"] is None or not math.isfinite(fit["nats"]):
        return "not finite"
    return f"{mean_and_error(fit['nats'], fit['standard_error'], digits=3)} ({fit['gap']:.3f})"
