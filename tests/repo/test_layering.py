"""The order of the rooms: imports go downward only, and heavy guests stay in theirs."""

from __future__ import annotations

import ast
import functools
import graphlib
import sys
from pathlib import Path

import pytest
from helpers.paths import PACKAGE

FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_assets" not in path.parts)

LAYERS = [
    {"errors", "files", "text", "config", "assets", "numerics", "distributed"},
    {"audio", "kernels"},
    {"dsp", "metrics"},
    {"nn", "distributions"},
    {"flows"},
    {"models"},
    {"losses", "data"},
    {"training", "inference"},
    {"evaluation", "benchmark", "doctor", "playground"},
    {"ablation", "notes"},
    {"applications"},
    {"quickstart"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

ALLOWED = {
    "gradio": set(),
    "wandb": {"training/tracker.py"},
    "torchaudio": {"audio/", "data/corpora/ljspeech.py"},  # its reader of that corpus
    "ray": {"inference/batch/ray_engine.py"},
    "zuko": {"benchmark/flow_peers.py"},  # importing it switches off argument checks in torch.distributions
    "nflows": {"benchmark/flow_peers.py"},
    "normflows": {"benchmark/flow_peers.py"},
    "vocos": {"benchmark/peers.py"},
    "parallel_wavegan": {"benchmark/peers.py"},
    "torchdiffeq": {"flows/continuous.py"},
}
LIGHT = {
    "numpy",
    "torch",
    "safetensors",
    "yaml",
    "tqdm",
}  # what a module may import at its top, beside the standard library


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path, types: bool = False) -> list[tuple[str, bool]]:
    """(dotted module, whether at the top level) of every import that runs, and with ``types`` of those for types."""
    found = []

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module, top))
            if node.module == "wavedistill":
                found.extend((f"wavedistill.{alias.name}", top) for alias in node.names)
        inside = top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree(path), True)
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_a_place_in_the_order():
    assert {room(path) for path in FILES} - {"__init__"} <= LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward_only(path):
    if room(path) == "__init__":
        return
    for module, _ in imports(path, types=True):
        parts = module.split(".")
        if parts[0] == "wavedistill" and len(parts) > 1 and parts[1] in LEVEL:
            own = room(path)
            other = parts[1]
            assert own == other or LEVEL[other] < LEVEL[own] or own in LAYERS[0] and other in LAYERS[0], (
                f"{path.relative_to(PACKAGE)} imports {module}"
            )


def dotted(path: Path) -> str:
    return ".".join(("wavedistill", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def test_no_circle_not_even_for_types():
    """Modules in an order in which each imports only what stands before it; a package's own names count as modules."""
    modules = {dotted(path): path for path in FILES if room(path) != "__init__"}
    graph = {}
    for module, path in modules.items():
        found = {name for name, _ in imports(path, types=True)}
        found |= {f"{name}.{alias}" for name, alias in from_imports(path)}
        graph[module] = {name for name in found if name in modules and name != module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


@functools.cache
def from_imports(path: Path) -> list[tuple[str, str]]:
    nodes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)]
    return [(node.module, alias.name) for node in nodes for alias in node.names]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_guests_stay_in_their_rooms(path):
    place = path.relative_to(PACKAGE).as_posix()
    for module, _ in imports(path):
        allowed = ALLOWED.get(module.split(".")[0])
        assert allowed is None or any(place.startswith(prefix) for prefix in allowed), f"{place} imports {module}"


def test_other_libraries_are_met_in_the_process_of_the_benchmark_only():
    """Importing zuko changes torch.distributions, so nothing that others import may lead there."""
    peers = {"wavedistill.benchmark.peers", "wavedistill.benchmark.flow_peers"}
    importers = {dotted(path) for path in FILES if peers & {name for name, _ in imports(path, types=True)}}
    importers |= {dotted(path) for path in FILES if peers & {f"{name}.{alias}" for name, alias in from_imports(path)}}
    assert importers == {"wavedistill.benchmark.__main__"}
    assert not [dotted(path) for path in FILES if "wavedistill.benchmark.__main__" in {n for n, _ in imports(path)}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_light_packages_are_imported_at_the_top(path):
    for module, top in imports(path):
        package = module.split(".")[0]
        assert not top or package in LIGHT | {"wavedistill"} or package in sys.stdlib_module_names, (
            f"{path.relative_to(PACKAGE)} imports {module} at its top: import it where it is used"
        )


def test_modules_stay_short():
    long = {str(path.relative_to(PACKAGE)): n for path in FILES if (n := len(path.read_text().splitlines())) > 320}
    assert not long, f"one concept a file, about 300 lines: {long}"


def test_functions_stay_short():
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = {
        f"{path.relative_to(PACKAGE)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        if room(path) != "kernels"
        for node in ast.walk(tree(path))
        if isinstance(node, kinds)
    }
    long = {name: lines for name, lines in found.items() if lines > 80}
    assert not long, f"one thought a function, 80 lines at most: {long}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_does_not_print(path):
    if room(path) == "cli" or path.name == "__main__.py":
        return
    for node in ast.walk(tree(path)):
        assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"), (
            f"{path}:{node.lineno} prints"
        )
