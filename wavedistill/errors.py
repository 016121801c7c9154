"""The exceptions that a user is meant to read."""

from __future__ import annotations

import math


class WavedistillError(ValueError):
    """A problem the user can fix: says what was given, what is needed and what to type, in one or two lines."""


class OutputError(WavedistillError):
    """A full disk, or a folder that must not be written: true of the other files of a job, too, so that it ends."""


def check_number(name: str, value: float, least: float = 0.0, below: float = math.inf, *, above: bool = False) -> None:
    """Refuse a setting out of its range, or that is no number (NaN).

    Args:
        least, below: least <= value < below.
        above: ``least`` itself is refused.
    """
    if (value > least if above else value >= least) and value < below:
        return
    limit = f" and below {below:g}" if below < math.inf else ""
    raise WavedistillError(f"{name} is {value:g}; it must be {'above' if above else 'at least'} {least:g}{limit}.")
