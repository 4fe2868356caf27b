"""Imports of llmft point down the floors of the house, never up, never in a circle (CONTRIBUTING, "The house")."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import llmft

SOURCE = Path(llmft.__file__).parent
# Packages of one floor never import each other.
FLOORS = [
    {"utils"},
    {"config"},
    {"data", "runs", "referee"},
    {"models", "metrics"},
    {"runtimes"},
    {"generation", "diagnostics", "estimate", "report"},
    {"callbacks", "evaluation", "export", "serving", "chat"},
    {"training", "sweep"},
    {"commands"},
    {"api"},
    {"__main__"},
]
FLOOR = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
LOOSE = {"__init__", "__main__", "api"}


def modules() -> dict[str, Path]:
    """``models.loss``: its file. A package is its ``__init__``."""
    files = {".".join(file.relative_to(SOURCE).with_suffix("").parts): file for file in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in files.items()}


def imports(file: Path, known: dict[str, Path], *, nested: bool) -> Iterator[str]:
    """The modules of llmft that a file imports: at its top, or only inside functions (``nested``)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or (id(node) in inside) != nested:
            continue
        package, _, rest = (node.module or "").partition(".")
        if package != "llmft":
            continue
        for alias in node.names:
            name = f"{rest}.{alias.name}".lstrip(".")
            if name in known or rest:
                yield name if name in known else rest


@cache
def edges(*, nested: bool) -> list[tuple[str, str]]:
    """Importing module, imported module."""
    known = modules()
    return [(name, other) for name, file in known.items() for other in imports(file, known, nested=nested)]


def package(module: str) -> str:
    return module.partition(".")[0]


def test_few_files_lie_loose_and_every_package_has_a_floor():
    files = {file.stem for file in SOURCE.glob("*.py")}
    folders = {folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").is_file()}
    assert files <= LOOSE
    assert folders | files - {"__init__"} == set(FLOOR)


def test_imports_point_down():
    up = [
        f"{importer} -> {imported}"
        for nested in (False, True)
        for importer, imported in edges(nested=nested)
        if importer != "__init__" and package(importer) != package(imported)
        if FLOOR[package(imported)] >= FLOOR[package(importer)]
    ]
    assert up == []


def test_no_circle():
    graph: dict[str, set[str]] = {}
    for importer, imported in [*edges(nested=False), *edges(nested=True)]:
        graph.setdefault(importer, set()).add(imported)
    list(TopologicalSorter(graph).static_order())  # raises CycleError


# Imports inside functions, each of a module whose libraries take a second or more that not every command needs.
LAZY = {
    "config.help -> config.help.page": "pydantic",
    "config.help.index -> config.help.facts": "pydantic",
    "config.hydra_precheck -> config.schema": "pydantic",
    "config.hydra_precheck -> config.typed": "pydantic",
    "config.schema.model -> utils.device": "torch",
    "config.schema.peft -> utils.device": "torch",
    "config.schema.trainer -> utils.device": "torch",
    "config.target_allowlist -> config.schema.data": "pydantic",
    "data -> data.datamodule": "torch, Lightning; encoding workers import llmft.data",
    "data.sources.resolve -> data.sources.download": "http, ssl",
    "evaluation.judge.judge -> evaluation.judge.http_client": "aiohttp",
    "evaluation.judge.judge -> evaluation.judge.local_model": "transformers",
    "runtimes.open -> runtimes.ctranslate2": "transformers",
    "runtimes.open -> runtimes.pytorch": "torch",
    "sweep.job -> report.html": "matplotlib",
    "sweep.job -> utils.device": "torch",
    "sweep.precheck -> models.architecture_check": "torch, transformers",
    "sweep.tables -> report.leaderboard": "matplotlib",
    "sweep.tables -> report.learning_curve": "matplotlib",
}


def test_imports_inside_functions_have_a_reason():
    lazy = {f"{a} -> {b}" for a, b in edges(nested=True) if package(a) not in {"__main__", "api", "commands"}}
    assert lazy == set(LAZY)
