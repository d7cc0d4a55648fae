"""Reference pages made from the code: ``python docs/generate.py`` writes them, a test holds them current."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest_fluxperf
from pytest_fluxperf import cli
from pytest_fluxperf.pipelines.optimizations.presets import FASTEST, FASTEST_LOSSLESS
from pytest_fluxperf.plugin import fixtures as fixture_module
from pytest_fluxperf.plugin import hookspec, options
from pytest_fluxperf.settings import CHECKS, ItemSettings

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Made by docs/generate.py from the code; edit there. -->\n"


class _Recorder:
    """Stands in for pytest's parser and keeps what is registered."""

    def __init__(self) -> None:
        self.options: list[tuple[str, dict[str, Any]]] = []
        self.ini: list[str] = []

    def getgroup(self, *_: str) -> _Recorder:
        return self

    def addoption(self, name: str, **arguments: Any) -> None:
        self.options.append((name, arguments))

    def addini(self, name: str, **_: Any) -> None:
        self.ini.append(name)


def options_page() -> str:
    """Every option with its ini setting, marker argument and default."""
    recorder = _Recorder()
    options.add_options(recorder)  # type: ignore[arg-type]
    defaults = {field.name: field.default for field in fields(ItemSettings)}
    rows = []
    for option, arguments in recorder.options:
        name = option.removeprefix("--fluxperf-").removeprefix("--").replace("-", "_")
        metavar = arguments.get("metavar") or ("" if arguments.get("action") else "|".join(arguments["choices"]))
        if arguments.get("nargs") == "?":
            metavar = f"[={metavar}]"
        shown = f"{option} {metavar}".strip() if not metavar.startswith("[") else option + metavar
        ini = f"fluxperf_{name}"
        default = _default(defaults[name]) if name in CHECKS else ""
        rows.append(
            (
                _code(shown),
                _code(ini) if ini in recorder.ini else "",
                _code(f"{name}=") if name in CHECKS else "",
                _cell(arguments["help"].replace("%%", "%")),
                default,
            )
        )
    head = (
        f"{NOTE}\n# Options\n\n"
        "Precedence, one rule for every setting: command line, then marker, then ini file, then default. "
        "An ini setting goes into `pytest.ini`, or into `[tool.pytest.ini_options]` of `pyproject.toml`. "
        "Where no default stands, the model's own holds (FLUX.1-dev: 1024×1024, 28 steps, guidance 3.5) "
        "or the setting is off.\n\n"
    )
    return head + _table(("option", "ini setting", "marker argument", "meaning", "default"), rows)


def recipes_page() -> str:
    """Every token of the grammar by family, in every choice that ``fluxperf recipes`` lists."""
    from pytest_fluxperf.recipe import FAMILIES, specs, variants

    parts = [
        f"{NOTE}\n# Tokens of a recipe\n",
        "A recipe is a sum of tokens, `dtype+attention+cache+quantization+compile`: one dtype, at most one token of "
        "every other family, any number of switches. What stands in brackets may be left out. Where a token has "
        "several kinds, the first is what holds when none is named, and the others follow. `fluxperf recipes` prints "
        "the same list with what this machine lacks.\n",
    ]
    for family in FAMILIES:
        rows = [
            (
                ", ".join(map(_code, (spec.usage, *map(str, variants(spec)[1:])))),
                _cell(spec.summary),
                "" if spec.lossless else "changes the picture",
            )
            for spec in specs()
            if spec.family == family
        ]
        if rows:
            parts.append(f"## {family}\n\n" + _table(("token", "meaning", ""), rows))
        if family == "whole":
            stands_for = [(name, _code(FASTEST[name]), _code(FASTEST_LOSSLESS[name])) for name in FASTEST]
            parts.append(
                "What they stand for. Hopper's were measured ([Recipes](../recipes.md)), the others ought to work:\n\n"
                + _table(("GPU family", "`fastest`", "`fastest_lossless`"), stands_for)
            )
    return "\n".join(parts)


def commands_page() -> str:
    """``fluxperf`` and its commands, as argparse tells them."""
    parser = cli.make_parser()
    (commands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help for choice in commands._choices_actions}
    parts = [
        f"{NOTE}\n# The fluxperf command\n",
        "Exit status: 0 fine, 1 a regression or a refusal, 4 a mistake in the input, told in one line, 130 "
        "interrupted, 141 when nobody reads the output to its end (`| head`).\n",
    ]
    for name, command in commands.choices.items():
        rows = [
            (_code(_spelling(action)), _cell(_help(action)))
            for action in command._actions
            if not isinstance(action, argparse._HelpAction) and action.help is not argparse.SUPPRESS
        ]
        parts.append(
            f"## fluxperf {name}\n\n{_sentence((helps.get(name) or '').replace('%%', '%'))}\n\n"
            + _table(("argument", ""), rows)
        )
    return "\n".join(parts)


def python_page() -> str:
    """Fixtures and hooks, from their docstrings."""
    parts = [f"{NOTE}\n# Fixtures and hooks\n\n## Fixtures\n"]
    rows = []
    for name, value in vars(fixture_module).items():
        if type(value).__name__ == "FixtureFunctionDefinition" or hasattr(value, "_pytestfixturefunction"):
            rows.append((_code(name), _cell(_plain((inspect.getdoc(value) or "").split("\n\n")[0]))))
    parts.append(_table(("fixture", ""), rows))
    parts.append("## Hooks\n\nA `conftest.py` or another plugin implements them; see [Extending](../extending.md).\n")
    hooks = [
        (_code(f"{name}({', '.join(inspect.signature(hook).parameters)})"), _cell(_plain(_first(hook))))
        for name, hook in vars(hookspec).items()
        if name.startswith("pytest_fluxperf_")
    ]
    parts.append(_table(("hook", ""), hooks))
    parts.append("## Names to import\n\n`from pytest_fluxperf import ...`; every other module is private.\n")
    names = [
        (_code(name), _cell(_plain(_first(getattr(pytest_fluxperf, name)))))
        for name in pytest_fluxperf.__all__
        if name != "__version__"
    ]
    parts.append(_table(("name", ""), names))
    return "\n".join(parts)


def pages() -> Iterator[tuple[Path, str]]:
    """Path and content of every generated page."""
    yield FOLDER / "options.md", options_page()
    yield FOLDER / "tokens.md", recipes_page()
    yield FOLDER / "command.md", commands_page()
    yield FOLDER / "python.md", python_page()


def _spelling(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if not metavar and action.choices:
        metavar = "|".join(map(str, action.choices))
    if not action.option_strings:
        return (metavar or action.dest) + (" …" if action.nargs in ("+", "*", "...") else "")
    takes = "" if action.nargs == 0 else f" {metavar or action.dest.upper()}"
    return ", ".join(action.option_strings) + takes


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%%", "%")
    plain = action.default in (None, False, argparse.SUPPRESS) or "default" in text
    return text if plain else f"{text} (default: {action.default})".strip()


def _first(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0]


def _plain(text: str) -> str:
    text = re.sub(r":\w+:`~?(.+?)`", r"`\1`", " ".join(text.split()))
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _default(value: Any) -> str:
    if value is None:
        return ""
    return _code(",".join(map(str, value)) if isinstance(value, tuple) else str(value))


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
