"""The site builds without a warning, and what is generated from the code or quotes it is current."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

from pages import ROOT

from pytest_fluxperf.recipe import specs, variants

SOURCES = [*(ROOT / "pytest_fluxperf").rglob("*.py"), *(ROOT / ".github").rglob("*.yml")]


def test_the_site_builds_strictly(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parent.name for path in (tmp_path / "site").rglob("index.html")}
    assert {"gate", "github", "extending", "troubleshooting", "options", "contributing", "changelog"} <= pages
    html = (tmp_path / "site" / "index.html").read_text()
    assert not re.search(r'(?:src|href)="https?://(?!squidfunk|www\.mkdocs)[^"]+\.(?:js|css|woff2?)"', html)


def test_links_of_the_repositorys_first_pages_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / name).read_text()):
            assert (ROOT / link).exists(), f"{name}: {link}"


def test_programs_that_contributors_are_sent_to_exist():
    named = re.findall(r"(?:benchmarks|tools|docs|requirements)/[\w./]+\.\w+", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 8
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_map_shows_the_floors_that_the_linter_holds():
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    (drawn,) = re.findall(r"```text\n(plugin .*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    floors = [set(re.findall(r"\w+", floor)) for floor in drawn.split("→")]
    assert floors == [set(re.findall(r"\w+", layer)) for layer in layers]
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "pytest_fluxperf").iterdir():
        if path.name not in ("__init__.py", "__init__.pyi", "__pycache__", "py.typed"):
            assert f"`{path.name}`" in text or f"`pytest_fluxperf/{path.name}/`" in text


def test_generated_pages_are_current():
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    for path, text in generate["pages"]():
        assert Path(path).read_text() == text, "run: python docs/generate.py"


def test_every_choice_of_a_token_is_spelled_out():
    """As ``fluxperf recipes`` lists them."""
    rows = (ROOT / "docs" / "reference" / "tokens.md").read_text().splitlines()
    for spec in specs():
        (tokens,) = (row.split(" | ")[0] for row in rows if row.startswith(f"| `{spec.usage}`"))
        spelled = re.findall("`(.+?)`", tokens)
        assert spelled == [spec.usage, *map(str, variants(spec)[1:])]
    page = "\n".join(rows)
    for choice in ("compile:tuned", "compile:whole", "fa2:package", "fp8:tensor"):
        assert f"`{choice}`" in page
    for engine in ("para-attn", "cache-dit"):
        assert f"`fbcache:T,engine={engine}`" in page


def test_troubleshooting_quotes_messages_that_exist():
    text = re.sub(r'"\s*\n\s*f?r?"', "", "\n".join(path.read_text() for path in SOURCES))  # joined string literals
    text = re.sub(r"\{[^{}]*\}", "…", text)
    headings = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(headings) > 25
    for heading in headings:
        # what is wrong and what to do may be two fields of a message
        for part in filter(None, (piece.strip(" :;(") for piece in re.split("…|; ", heading))):
            assert part in text, f"no message contains {part!r} (of {heading!r})"
