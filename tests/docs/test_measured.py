"""No measured figure in the documentation is typed in: the sections are what the commands print."""

from __future__ import annotations

import re

import pytest
from pages import ROOT

from pytest_fluxperf.pipelines.optimizations.presets import FASTEST, FASTEST_LOSSLESS
from tools.recorded.__main__ import main
from tools.recorded.sections import read_section

WHOLE, SHORTER = (f"docs/measurements.tar.xz:h200-{kind}*" for kind in ("results", "extra"))
COMMANDS = {"table": [WHOLE, SHORTER], "cost": [WHOLE]}


@pytest.mark.parametrize("section", COMMANDS)
def test_a_section_is_what_its_command_prints(section, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    main([section, *COMMANDS[section]])
    assert read_section(ROOT / "docs" / "recipes.md", section) == capsys.readouterr().out


def test_the_measured_page_is_what_the_programs_print(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import measured

    found = dict(measured.sections())
    assert set(found) == set(re.findall(r"<!-- fluxperf (.+): begin -->", measured.PAGE.read_text(encoding="utf-8")))
    for name, text in found.items():
        assert read_section(measured.PAGE, name) == text


def test_what_the_page_of_comparisons_quotes_is_what_was_measured():
    measured, page = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("measured.md", "comparing.md"))
    quoted = [
        text for text in re.findall(r"`([^`\n]+%[^`\n]+)`", page) if text.startswith(("between", "within", "change"))
    ]
    assert len(quoted) == 3
    lines = [line.strip() for line in measured.splitlines()]
    assert [text for text in quoted if text not in lines] == []


def test_whole_recipes_are_documented_as_they_are():
    assert FASTEST.keys() == FASTEST_LOSSLESS.keys()
    rows = [f"| `{name}` | `{FASTEST[name]}` | `{FASTEST_LOSSLESS[name]}` |\n" for name in FASTEST]
    assert "".join(rows) in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_readme_of_the_baselines_shows_both_commands():
    text = (ROOT / "baselines" / "README.md").read_text(encoding="utf-8")
    for section, sources in COMMANDS.items():
        quoted = " ".join(f"'{source}'" for source in sources)
        assert f"$ python -m tools.recorded {section} {quoted} --into docs/recipes.md\n" in text


def test_every_folder_of_baselines_is_explained():
    text = (ROOT / "baselines" / "README.md").read_text(encoding="utf-8")
    for folder in (ROOT / "baselines").iterdir():
        if folder.is_dir():
            assert f"- `{folder.name}/`:" in text
