"""The project's habits as files: hooks before a commit, and templates that GitHub takes."""

from __future__ import annotations

import re

import pytest
import yaml
from actions import ROOT

CONFIG = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
HOOKS = {hook["id"]: hook for hook in CONFIG["repos"][0]["hooks"]}
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("x" * 72, False),
        ("x" * 73, True),
        ("é" * 72, False),
        ("測" * 73, True),
        ("short\n\n" + "x" * 200, False),
        ("x" * 73 + "\n\nbody", True),
    ],
)
def test_a_commits_subject_has_72_characters_at_most(message, refused):
    hook = HOOKS["commit-subject"]
    assert (hook["language"], hook["args"], hook["stages"]) == ("pygrep", ["--multiline"], ["commit-msg"])
    # as pre-commit's pygrep searches a whole file
    found = re.search(hook["entry"].encode(), message.encode(), re.MULTILINE | re.DOTALL)
    assert bool(found) == refused


def test_hooks_run_what_make_lint_runs_and_fetch_nothing():
    assert [repository["repo"] for repository in CONFIG["repos"]] == ["local"]
    programs = {hook["entry"].split()[0] for hook in HOOKS.values() if hook["language"] == "system"}
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert programs == {f".venv/bin/{name}" for name in re.findall(r"\$\(BIN\)/(\S+)", lint)}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_one_that_github_shows(path):
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert set(form) == {"name", "description", "body"}
    identifiers = [element["id"] for element in form["body"]]
    assert len(identifiers) == len(set(identifiers))
    for element in form["body"]:
        assert element["type"] == "textarea"
        assert set(element["attributes"]) <= {"label", "description", "render"}
        assert element["attributes"]["label"]
