"""What is wrong with a run, and which term or option to change: `symptoms` looked for in a run folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wavedistill.doctor.symptoms import SYMPTOMS, Symptom
from wavedistill.doctor.verdict import Severity, Verdict
from wavedistill.files import write_json, write_text
from wavedistill.training.run_folder import RunFolder, read_run


@dataclass(frozen=True)
class Diagnosis:
    """The verdict on every symptom that can arise in a run, in the list's order."""

    run: RunFolder
    verdicts: list[tuple[Symptom, Verdict]]

    def of(self, severity: Severity) -> list[tuple[Symptom, Verdict]]:
        """The verdicts of one severity."""
        return [(symptom, verdict) for symptom, verdict in self.verdicts if verdict.severity == severity]

    @property
    def markdown(self) -> str:
        """For people: what is wrong first, then what is worth knowing, then the evidence that the rest is healthy."""
        wrong, known, healthy, skipped = (
            self.of(name) for name in ("wrong", "worth knowing", "healthy", "not checked")
        )
        counts = [f"{len(found)} {name}" for found, name in ((wrong, "wrong"), (known, "worth knowing")) if found]
        lines = [f"# {self.run.folder.name}: {', '.join(counts) or 'healthy'}", "", _summary(self.run)]
        for symptom, verdict in wrong + known:
            lines += ["", f"## {symptom.name} ({verdict.severity})", "", f"- seen: {verdict.evidence}"]
            lines += [f"- cause: {symptom.cause}", f"- change: {symptom.remedy}"]
            lines += [f"- type: `{verdict.command}`"] if verdict.command else []
        for title, found in (("Healthy", healthy), ("Not checked", skipped)):
            lines += ["", f"## {title}", ""] if found else []
            lines += [f"- {symptom.name}: {verdict.evidence}" for symptom, verdict in found]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        run = self.run
        found = [
            {"symptom": symptom.name, "severity": verdict.severity, "evidence": verdict.evidence}
            | (
                {"cause": symptom.cause, "change": symptom.remedy}
                if verdict.severity in ("wrong", "worth knowing")
                else {}
            )
            | ({"command": verdict.command} if verdict.command else {})
            for symptom, verdict in self.verdicts
        ]
        return {"run": str(run.folder), "role": run.role, "step": run.step, "elapsed": run.elapsed, "verdicts": found}

    def save(self, folder: str | Path) -> None:
        """Write doctor.md and doctor.json."""
        write_json(Path(folder) / "doctor.json", self.to_json())
        write_text(Path(folder) / "doctor.md", self.markdown + "\n")


def diagnose(run: str | Path) -> Diagnosis:
    """Look for every symptom in a run folder; nothing is trained or synthesised.

    Seconds; a teacher's or flow's validation crops are coded by linear prediction as well, where its data lie here (up
    to half a minute).

    Raises:
        WavedistillError: no run folder, or one that has logged nothing yet.
    """
    record = read_run(run)
    found = [(symptom, symptom.check(record)) for symptom in SYMPTOMS]
    verdicts = [(symptom, verdict) for symptom, verdict in found if verdict is not None]
    if any(symptom.comes_first and verdict.severity == "wrong" for symptom, verdict in verdicts):
        # no command that would take the broken run further
        verdicts = [
            (symptom, verdict if symptom.comes_first else replace(verdict, command=None))
            for symptom, verdict in verdicts
        ]
    return Diagnosis(record, verdicts)


def _summary(run: RunFolder) -> str:
    validations = sum(line["kind"] == "valid" for line in run.lines)
    samples = "no samples" if run.samples.step is None else f"samples of step {run.samples.step}"
    return (
        f"A {run.role} at step {run.step}, {run.elapsed / 60:.1f} min, {100 * run.done:.0f} % of its schedule; "
        f"{validations} validations, {samples}."
    )
