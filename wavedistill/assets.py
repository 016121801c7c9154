"""Find the files that ship with the package: bundled checkpoints, recipes and the web page.

In a wheel they lie in ``wavedistill/_assets/{checkpoints,recipes,web}``; in a checkout (and so in an editable
install) they lie beside the package. Both are the same files: the wheel's are packed by ``pyproject.toml``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from wavedistill.errors import WavedistillError

_PACKAGE = Path(__file__).resolve().parent


def _asset(kind: str) -> Path:
    for root in (_PACKAGE / "_assets", _PACKAGE.parent):
        if (root / kind).is_dir():
            return root / kind
    raise WavedistillError(
        f"the packaged folder {kind!r} is missing beside {_PACKAGE}: this installation is incomplete\n"
        "reinstall with: pip install --force-reinstall wavedistill"
    )


def find_checkpoint_root() -> Path:
    """The folder that holds the bundled checkpoints, one sub-folder each."""
    return _asset("checkpoints")


def bundled_checkpoints() -> list[str]:
    """Names of the bundled checkpoints, sorted; empty if none are packaged."""
    try:
        root = find_checkpoint_root()
    except WavedistillError:
        return []
    return sorted(path.parent.name for path in root.glob("*/config.json"))


def recipe_path(name: str = "") -> Path:
    """A recipe's folder or file, for example ``recipe_path("toy")`` or ``recipe_path("quickstart/clips")``."""
    path = _asset("recipes") / name
    if not path.exists():
        known = ", ".join(sorted(p.name for p in _asset("recipes").iterdir() if p.is_dir() and p.name[0] not in "._"))
        raise WavedistillError(f"there is no packaged recipe {name!r}\npackaged recipes: {known}")
    return path


def web_path() -> Path:
    """The folder of the web demo (``app.py`` and its examples)."""
    return _asset("web")


def load_web_app() -> ModuleType:
    """The module ``app`` of the web demo, whose folder becomes the package ``wavedistill_web`` of this process.

    The folder is no part of ``wavedistill``: nothing imports Gradio until this is called.
    """
    package = "wavedistill_web"
    if package not in sys.modules:
        folder = web_path()
        spec = importlib.util.spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    return importlib.import_module(f"{package}.app")
