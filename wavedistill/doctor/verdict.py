"""What a single check of a run found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["wrong", "worth knowing", "healthy", "not checked"]


@dataclass(frozen=True)
class Verdict:
    """A check's result.

    Attributes:
        severity: "wrong", "worth knowing", "healthy", or "not checked" where the run does not tell.
        evidence: in numbers; of "not checked", why not.
        command: what to type, where one command line changes it.
    """

    severity: Severity
    evidence: str
    command: str | None = None


def graded(value: float, note: float, wrong: float, evidence: str, command: str | None = None) -> Verdict:
    """Healthy up to ``note``, "worth knowing" beyond it, "wrong" beyond ``wrong``. If note > wrong, less is worse."""
    sign = 1.0 if wrong >= note else -1.0
    if sign * value > sign * wrong:
        return Verdict("wrong", evidence, command)
    if sign * value > sign * note:
        return Verdict("worth knowing", evidence, command)
    return Verdict("healthy", evidence)


def worse(first: Verdict, second: Verdict) -> Verdict:
    """The graver of two verdicts on the same symptom, with the evidence of both; not checked only where neither is."""
    order = ("not checked", "healthy", "worth knowing", "wrong")
    low, high = sorted((first, second), key=lambda verdict: order.index(verdict.severity))
    if low.severity == "not checked":
        return high
    evidence = "; ".join(dict.fromkeys((first.evidence, second.evidence)))
    return Verdict(high.severity, evidence, high.command or low.command)
