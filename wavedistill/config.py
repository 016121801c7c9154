"""Strict conversion between dataclasses, plain dictionaries, YAML and JSON.

A configuration is a (nested) dataclass; one with presets (`MelConfig`) is given by its fields or by a preset's name.
Reading one refuses unknown keys and wrong types by name, so a typing mistake in a recipe cannot pass silently as a
default.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

from wavedistill.errors import WavedistillError
from wavedistill.files import write_text


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as nested plain dictionaries, lists and scalars."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: Any, where: str = "config") -> Any:
    """Build dataclass ``cls`` from a dictionary. A field with ``init=False`` may be given, with its one value.

    Raises:
        WavedistillError: for an unknown key (with the closest known one), a missing required key or a wrong type.
    """
    if not isinstance(values, dict):
        raise WavedistillError(f"{where} must be a mapping of {cls.__name__} fields, not {type(values).__name__}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise WavedistillError(f"{where}: unknown key '{key}'.{hint} Known keys: {', '.join(fields)}.")
    hints = typing.get_type_hints(cls)
    arguments = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    missing = [name for name, field in fields.items() if name not in arguments and _is_required(field)]
    if missing:
        raise WavedistillError(f"{where}: missing key '{missing[0]}' (needed by {cls.__name__}).")
    return cls(**{name: value for name, value in arguments.items() if fields[name].init})


def load_yaml(path: str | Path, cls: type) -> Any:
    """Read a YAML file into dataclass ``cls``; errors name the file."""
    return from_dict(cls, read_yaml(path), where=str(path))


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds, {} where it is empty; errors name the file."""
    import yaml

    path = Path(path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise WavedistillError(
            f"cannot read {path}: {error.strerror}. Give the path of a recipe's YAML file."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date that is none
        raise WavedistillError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def dump_yaml(config: Any, path: str | Path) -> None:
    """Write a dataclass as YAML, in field order, atomically."""
    import yaml

    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))


def has_presets(cls: type) -> bool:
    """Whether a name may stand for all values of a dataclass: ``cls.preset(name)`` gives them."""
    return hasattr(cls, "preset")


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise WavedistillError(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}.")
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, str) and has_presets(hint):
            return hint.preset(value)
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise WavedistillError(f"{where}: expected a list, got {value!r}.")
        element = arguments[0] if arguments else Any
        return origin(_convert(element, item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise WavedistillError(f"{where}: expected a mapping, got {value!r}.")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _convert_scalar(hint, value, where)


def _convert_union(options: tuple, value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    for option in options:
        try:
            return _convert(option, value, where)
        except WavedistillError:
            if len(options) == 1:
                raise
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise WavedistillError(f"{where}: expected {names}, got {value!r}.")


def _convert_scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-3 as text
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise WavedistillError(f"{where}: expected {hint.__name__}, got {value!r}.")
    return value
