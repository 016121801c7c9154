"""The one exception a user is meant to read."""

from __future__ import annotations


class WavedistillError(ValueError):
    """A problem the user can fix: says what was given, what is needed and what to type, in one or two lines."""
