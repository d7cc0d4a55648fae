"""The shape of the house: its rooms, who may know whom, and how long a piece may be. docs/architecture.md tells why."""

from __future__ import annotations

import ast
import graphlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pytest_fluxperf"
PROGRAMS = ("benchmarks", "tools")
ROOMS = {
    "plugin",
    "cli",
    "ab",
    "bench",
    "gate",
    "report",
    "baseline",
    "pipelines",
    "machine",
    "measure",
    "quality",
    "recipe",
    "settings",
    "results",
    "errors",
    "files",
}
MOST_ROOMS = 18
LONGEST_CLASS, LONGEST_FUNCTION = 300, 50
VAGUE = {"own", "spent", "foreign", "whole", "shortage", "side", "pooled", "live", "wiring"}
"""Names that told a newcomer nothing of what is in the module."""


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Every module of these folders, by its path in the repository."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def imported(module: ast.Module) -> set[str]:
    """First names of all absolute imports, those inside of functions too."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def configuration() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, object] = tomllib.load(file)["tool"]["importlinter"]
    return found


def test_the_rooms_are_these():
    modules = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"}
    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert modules | folders == ROOMS
    assert len(ROOMS) + len(PROGRAMS) <= MOST_ROOMS


def test_every_room_is_explained():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\*\*`([\w.]+?)(?:/|\.py)?`", page, re.MULTILINE))
    assert explained == {*ROOMS, *PROGRAMS}


def test_the_page_names_what_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:pytest_fluxperf|tests|docs)/[\w./]+)`", page)
    named += [f"pytest_fluxperf/{path}" for path in re.findall(r"`((?:" + "|".join(ROOMS) + r")/\w+\.py)`", page)]
    assert len(named) > 25
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_contracts_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


def test_the_contracts_make_no_exceptions(configuration):
    assert not configuration.get("exclude_type_checking_imports")
    contracts = {contract["name"]: contract for contract in configuration["contracts"]}
    assert not any("ignore_imports" in contract for contract in contracts.values())
    layers = contracts["Rooms depend downwards only"]
    assert layers["exhaustive"]
    assert len(layers["layers"]) == 6
    assert {room for floor in layers["layers"] for room in re.findall(r"\w+", floor)} == ROOMS


def test_no_module_imports_itself_in_a_circle():
    graph = grimp.build_graph("pytest_fluxperf", "tools", cache_dir=None)
    sorter = graphlib.TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) - {module} for module in graph.modules}
    )
    sorter.prepare()  # a CycleError names the modules


def test_pytest_is_known_to_the_plugin_alone():
    others = [
        str(path)
        for path, module in sources("pytest_fluxperf")
        if path.parts[1] != "plugin" and imported(module) & {"pytest", "_pytest", "pluggy", "xdist"}
    ]
    assert others == []


def test_the_package_knows_no_program():
    assert [str(path) for path, module in sources("pytest_fluxperf") if imported(module) & {*PROGRAMS, "tests"}] == []


def test_no_class_and_no_function_is_long():
    limits = {ast.ClassDef: LONGEST_CLASS, ast.FunctionDef: LONGEST_FUNCTION, ast.AsyncFunctionDef: LONGEST_FUNCTION}
    long = {
        f"{path}: {node.name}": length
        for path, module in sources("pytest_fluxperf", *PROGRAMS)
        for node in ast.walk(module)
        if (limit := limits.get(type(node))) and (length := node.end_lineno - node.lineno + 1) > limit
    }
    assert long == {}


def test_modules_are_named_for_what_they_hold():
    assert [str(path) for path, _ in sources("pytest_fluxperf", *PROGRAMS) if path.stem in VAGUE] == []


def test_every_module_says_what_it_is_for():
    without = [str(path) for path, module in sources("pytest_fluxperf", *PROGRAMS) if not ast.get_docstring(module)]
    assert without == []
