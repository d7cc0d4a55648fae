"""What users import: from the package itself, loaded on use, and the same for type checkers as for Python."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_fluxperf

HEAVY = ("torch", "numpy", "diffusers", "transformers", "PIL", "jinja2")
STUB = Path(pytest_fluxperf.__file__).with_suffix(".pyi")


def loads(program: str) -> list[str]:
    """What of the heavy packages a fresh process has loaded after ``program``."""
    program += f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found: list[str] = ast.literal_eval(done.stdout)
    return found


def test_every_public_name_is_there_and_documented():
    for name in pytest_fluxperf.__all__:
        value = getattr(pytest_fluxperf, name)
        assert name == "__version__" or inspect.getdoc(value)
    assert set(dir(pytest_fluxperf)) == set(pytest_fluxperf.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Picture'"):
        pytest_fluxperf.Picture  # noqa: B018


def test_nothing_is_loaded_before_a_name_is_asked_for():
    assert loads("import pytest_fluxperf; import sys; assert 'pytest_fluxperf.recipe' not in sys.modules") == []


def test_all_names_load_without_torch_and_numpy():
    assert loads("from pytest_fluxperf import *") == []


def test_type_checkers_see_the_same_names():
    stub = ast.parse(STUB.read_text())
    imported = {
        alias.asname: f"{node.module}" for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {*imported, "__version__"} == set(pytest_fluxperf.__all__)
    for name, module in imported.items():
        assert getattr(sys.modules[module], name) is getattr(pytest_fluxperf, name)


def test_the_page_on_extending_imports_public_names_only():
    page = Path(__file__).parents[1] / "docs" / "extending.md"
    imported = re.findall(r"(?:from|import) (pytest_fluxperf[\w.]*)", page.read_text(encoding="utf-8"))
    assert set(imported) == {"pytest_fluxperf"}
