"""The fields of a recipe as options of the command line: ``--run.minutes 60 --optim.lr=3e-4 --model.speakers ann bob``.

An option is a field's path; "-" and "_" mean the same. What it takes is what the field's type says: one value, as many
as a list has, none for True (``--run.compile``) and False (``--run.no-compile``), None where the field may be None, and
a preset's name for settings that have presets (``--model.mel vocos-24khz``).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, Union

from wavedistill.config import from_dict, has_presets, to_dict
from wavedistill.errors import WavedistillError


def override(recipe: Any, overrides: Sequence[str]) -> Any:
    """The recipe with options of the command line applied to it; ``--help`` lists them all and ends the program.

    Raises:
        WavedistillError: for an unknown option (with the closest known one), a wrong value, or values that do not go
            together.
    """
    if {"-h", "--help"} & {*overrides}:
        _print_help(override(recipe, [word for word in overrides if word not in ("-h", "--help")]))
    if not overrides:
        return recipe
    fields = dict(_fields(type(recipe), recipe))
    values = to_dict(recipe)
    for option, words in _split(overrides):
        name, switch = _find(option, fields)
        *groups, last = name.split(".")
        group = functools.reduce(dict.__getitem__, groups, values)
        group[last] = _convert(fields[name], words, option) if switch is None or words else switch
    return from_dict(type(recipe), values, where=f"the recipe with {' '.join(overrides)}")


def _fields(cls: type, values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(path, type) of every field, those of nested dataclasses and mappings by their own paths."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        path = f"{prefix}{field.name}"
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            if has_presets(type(value)):
                found.append((path, type(value)))
            found += _fields(type(value), value, f"{path}.")
        elif isinstance(value, dict):
            found += [(f"{path}.{key}", typing.get_args(hints[field.name])[1]) for key in value]
        elif field.init:
            found.append((path, hints[field.name]))
    return found


def _split(overrides: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each option with its words, from ``--option word word`` and ``--option=word``."""
    found: list[tuple[str, list[str]]] = []
    for word in overrides:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            found.append((option, [value] if equals else []))
        elif not found:
            raise WavedistillError(f"cannot use {word}: an option comes first, for example --run.minutes {word}")
        else:
            found[-1][1].append(word)
    return found


def _find(option: str, fields: dict[str, Any]) -> tuple[str, bool | None]:
    """The field that an option means, and for a switch whether it turns it on or off (None: no switch)."""
    spelled = {_spelling(name): name for name in fields}
    wanted = _spelling(option[2:])
    positive = re.sub(r"(^|\.)no-", r"\1", wanted)
    if wanted in spelled:
        return spelled[wanted], True if fields[spelled[wanted]] is bool else None
    if positive in spelled and fields[spelled[positive]] is bool:
        return spelled[positive], False
    close = difflib.get_close_matches(wanted, spelled, n=1, cutoff=0.5)
    suggestion = f" Did you mean --{spelled[close[0]]}?" if close else ""
    raise WavedistillError(f"unknown option {option}.{suggestion}")


def _spelling(name: str) -> str:
    return name.replace("_", "-")


def _convert(hint: Any, words: list[str], option: str) -> Any:
    """The value of a field from the words that follow its option."""
    origin = typing.get_origin(hint)
    parts = typing.get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = [part for part in parts if part is not type(None)]
        return None if words == ["None"] else _convert(inner, words, option)
    if origin in (list, tuple):
        fixed = origin is tuple and Ellipsis not in parts
        if fixed and len(words) != len(parts):
            raise WavedistillError(f"{option} takes {len(parts)} values, given {' '.join(words) or 'none'}.")
        return origin(_scalar(parts[0], word, option) for word in words)
    if hint is bool:
        raise WavedistillError(f"{option} is a switch and takes no value, given {' '.join(words)}.")
    if dataclasses.is_dataclass(hint) and len(words) == 1:
        return to_dict(hint.preset(words[0]))
    if len(words) != 1:
        raise WavedistillError(f"{option} takes one value, given {' '.join(words) or 'none'}.")
    return _scalar(hint, words[0], option)


def _scalar(hint: Any, word: str, option: str) -> Any:
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if word not in choices:
            raise WavedistillError(f"{option} {word}: give one of {', '.join(choices)}.")
        return word
    if hint is str:
        return word
    if hint not in (int, float):
        raise WavedistillError(f"{option} cannot be set to {word} on the command line: write it in the recipe's file.")
    try:
        return hint(word)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[hint]
        raise WavedistillError(f"{option} {word}: {wanted} is needed.") from None


def _print_help(recipe: Any) -> typing.NoReturn:
    """All options with their descriptions and values, drawn by tyro; fields that cannot be set are left out."""
    import tyro

    cls = type(recipe)
    fields = dataclasses.fields(cls)
    hidden = [
        (field.name, tyro.conf.Suppress[Any], dataclasses.field(init=False, default=field.default))
        for field in fields
        if not field.init
    ]
    shown = dataclasses.make_dataclass(cls.__name__, hidden, bases=(cls,), kw_only=True)
    values = shown(**{field.name: getattr(recipe, field.name) for field in fields if field.init})
    options = (tyro.conf.AvoidSubcommands,)
    tyro.cli(shown, default=values, args=["--help"], description=cls.__doc__, config=options)
