"""Packages that a metric needs and the base install may lack."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable
from types import ModuleType

from wavedistill.errors import WavedistillError


def need_package(package: str) -> ModuleType:
    """Import a package, or raise WavedistillError with what to install."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyworld announces the end of pkg_resources at each import
            return importlib.import_module(package)
    except ImportError as error:
        raise WavedistillError(
            f'this metric needs the package {package} ({error}): pip install "wavedistill[eval]"'
        ) from error


def first_missing(packages: Iterable[str]) -> str | None:
    """The first package that cannot be imported; None where all can."""
    for package in packages:
        try:
            need_package(package)
        except WavedistillError:
            return package
    return None
