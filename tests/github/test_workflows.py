"""The workflows are valid, safe by construction, and their scripts do what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from actions import ROOT, WORKFLOWS, Runner, script, workflow

SELF_HOSTED = [("perf-gate", "gate"), ("dependency-gate", "gate"), ("update-baselines", "measure")]
JOBS = [(path.stem, job) for path in WORKFLOWS for job in workflow(path.stem)["jobs"]]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    (folder / "requirements").mkdir(parents=True)
    (folder / "baselines" / "h100" / "images").mkdir(parents=True)
    (folder / "requirements" / "perf.txt").write_text("torch==2.11.0\n")
    (folder / "baselines" / "h100" / "old.json").write_text("{}\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "start")
    return folder


@pytest.fixture
def runner(tmp_path, repository):
    return Runner(tmp_path, repository)


# -- linters ---------------------------------------------------------------------------------------------------


def lint(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # beside the interpreter: the tests also run without an activated environment
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which(command[0], path=path)
    assert program, f"{command[0]} is not installed: pip install -r requirements/test.txt"
    environment = {**os.environ, "PATH": path}
    return subprocess.run([program, *command[1:]], cwd=cwd, env=environment, capture_output=True, text=True)


def test_zizmor_finds_nothing():
    done = lint("zizmor", "--offline", "--no-progress", "--no-exit-codes", "--format=json", ".github")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_actionlint_finds_nothing():
    done = lint("jactionlint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shellcheck was not found" not in done.stderr


def test_the_linters_would_find_something(tmp_path):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "bad.yml").write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n"
        "      - run: echo ${{ github.event.pull_request.title }}\n"
    )
    assert lint("zizmor", "--offline", "--no-progress", ".github", cwd=tmp_path).returncode
    assert lint("jactionlint", "bad.yml", cwd=folder).returncode


# -- safe by construction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_trigger_runs_a_requests_code_with_rights(path):
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(workflow(path.stem)["on"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_with_their_version(path):
    uses = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert uses
    for action, comment in uses:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_every_job_has_a_time_limit_and_its_own_least_permissions(name, job):
    content = workflow(name)
    assert content["permissions"] == {}
    description = content["jobs"][job]
    assert description["timeout-minutes"] <= 240
    assert "permissions" in description
    checkouts = [s for s in description["steps"] if s.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize(("name", "job"), SELF_HOSTED)
def test_what_runs_on_our_machines_can_read_the_code_and_nothing_else(name, job):
    description = workflow(name)["jobs"][job]
    assert description["permissions"] == {"contents": "read"}
    text = yaml.safe_dump(description)
    assert "secrets." not in text
    assert "github.token" not in text
    assert description["concurrency"]["group"].startswith("gpu-")
    assert description["concurrency"]["queue"] == "max"


@pytest.mark.parametrize(("name", "job"), SELF_HOSTED)
def test_what_runs_on_our_machines_keeps_caches_and_an_artifact(name, job):
    description = workflow(name)["jobs"][job]
    assert description["env"]["HF_HOME"].endswith("/huggingface")
    owner = "github.run_id" if name == "update-baselines" else "github.event.pull_request.number"
    assert owner in description["env"]["TORCHINDUCTOR_CACHE_DIR"]  # no request writes what main will run
    assert [s for s in description["steps"] if s.get("uses", "").startswith("actions/upload-artifact@")]


def test_a_fork_cannot_order_baselines():
    condition = " ".join(workflow("update-baselines")["jobs"]["order"]["if"].split())
    assert "&& github.event.pull_request.head.repo.full_name == github.repository" in condition


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_no_expression_stands_inside_a_script(name, job):
    for step in workflow(name)["jobs"][job]["steps"]:
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("name", ["perf-gate", "dependency-gate"])
def test_a_fork_needs_the_label_and_only_its_event_counts(name):
    condition = " ".join(workflow(name)["jobs"]["gate"]["if"].split())
    assert "(github.event.action == 'labeled' && github.event.label.name == 'gpu')" in condition
    assert (
        "(github.event.action != 'labeled' && github.event.pull_request.head.repo.full_name == github.repository)"
        in condition
    )


@pytest.mark.parametrize("name", ["perf-gate", "dependency-gate"])
def test_the_job_that_can_comment_runs_the_target_branchs_code(name):
    job = workflow(name)["jobs"]["comment"]
    assert job["runs-on"] == "ubuntu-24.04"
    (checkout,) = [s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


# -- what the scripts do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "other_label", "fails", "says"),
    [
        ("success", "false", False, "gated"),
        ("failure", "false", True, "ended with: failure"),
        ("cancelled", "false", True, "ended with: cancelled"),
        ("skipped", "false", True, "adds the label gpu"),
        ("skipped", "true", False, "starts no gate"),
    ],
)
def test_the_required_check_of_the_gate(runner, result, other_label, fails, says):
    done = runner.run(script("perf-gate", "verdict"), RESULT=result, OTHER_LABEL=other_label)
    assert bool(done.returncode) == fails
    assert says in done.stdout


@pytest.mark.parametrize(
    ("moved", "result", "other_label", "fails"),
    [
        ("true", "success", "false", False),
        ("true", "failure", "false", True),
        ("true", "skipped", "false", True),
        ("true", "skipped", "true", False),
        ("false", "skipped", "false", False),
        ("", "skipped", "false", True),  # comparing the pins failed
    ],
)
def test_the_required_check_of_the_dependency_gate(runner, moved, result, other_label, fails):
    done = runner.run(script("dependency-gate", "verdict"), MOVED=moved, RESULT=result, OTHER_LABEL=other_label)
    assert bool(done.returncode) == fails


@pytest.mark.parametrize(("file", "moved"), [("requirements/perf.txt", "true"), ("README.md", "false")])
def test_only_a_request_that_moves_pins_is_gated(runner, repository, file, moved):
    git(repository, "checkout", "-q", "-b", "topic")
    (repository / file).write_text("torch==2.13.0\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "bump")
    git(repository, "checkout", "-q", "main")
    git(repository, "merge", "-q", "--no-ff", "topic", "-m", "what pull_request checks out")
    assert runner.run(script("dependency-gate", "pins")).returncode == 0
    assert runner.outputs == {"moved": moved}


@pytest.mark.parametrize(
    ("order", "outputs"),
    [
        ("update-baselines h100", {"gpu": "h100", "which": "failed"}),
        ("update-baselines l40s all", {"gpu": "l40s", "which": "all"}),
        ("update-baselines h100-mig-3g append", {"gpu": "h100-mig-3g", "which": "append"}),
        ("update-baselines", {}),
        ("update-baselines h100 everything", {}),
        ("update-baselines ../../etc", {}),
        ("update-baselines h100; rm -rf /", {}),
        ("update-baselines h100\nwhich=all", {}),
    ],
)
def test_an_order_is_read_strictly(runner, order, outputs):
    done = runner.run(script("update-baselines", "order"), ORDER=order)
    assert bool(done.returncode) != bool(outputs)
    assert runner.outputs == outputs


def propose(runner, repository, proposal: dict[str, str]) -> list[list[str]]:
    """Runs the steps of ``propose``; returns how gh was called."""
    for name, text in proposal.items():
        path = runner.temporary / "proposal" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tools = runner.folder / "tools"
    tools.mkdir()
    (tools / "gh").write_text('#!/bin/sh\nprintf "%s\\037" "$@" >> "$GH_LOG"; echo >> "$GH_LOG"\n')
    (tools / "gh").chmod(0o755)
    log = runner.folder / "gh.log"
    log.touch()
    environment = {
        "GPU": "h100",
        "TOPIC": "baselines/h100-7",
        "BRANCH": "$(touch planted)",
        "GH_LOG": str(log),
        "PATH": f"{tools}:{os.environ['PATH']}",
    }
    for step in ("Commit the baselines", "Open the request"):
        done = runner.run(script("update-baselines", "propose", step), **environment)
        assert done.returncode == 0, done.stderr
        if runner.outputs["moved"] == "false":
            break
    assert not (repository / "planted").exists()
    return [line.split("\x1f")[:-1] for line in log.read_text().splitlines()]


def test_new_baselines_become_a_request(runner, repository, tmp_path):
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(repository, "remote", "add", "origin", str(tmp_path / "remote.git"))
    (call,) = propose(
        runner, repository, {"h100/new.json": "{}\n", "h100/images/a.png": "x", "request.md": "old → new\n"}
    )
    assert call[:2] == ["pr", "create"]
    assert call[call.index("--base") + 1] == "$(touch planted)"
    assert Path(call[call.index("--body-file") + 1]).read_text() == "old → new\n"
    changed = git(tmp_path / "remote.git", "show", "--name-status", "--format=", "baselines/h100-7").splitlines()
    assert sorted(line.split("\t")[-1] for line in changed) == [
        "baselines/h100/images/a.png",
        "baselines/h100/new.json",  # git sees a rename of the old one, which was replaced
    ]


def test_baselines_that_did_not_move_open_no_request(runner, repository):
    assert propose(runner, repository, {"h100/old.json": "{}\n", "request.md": ""}) == []


# -- bots ------------------------------------------------------------------------------------------------------


def pinned() -> set[str]:
    lines = (ROOT / "requirements" / "perf.txt").read_text().splitlines()
    return {line.split("==")[0] for line in lines if "==" in line}


def test_both_bots_group_the_stack_alike():
    renovate = json.loads((ROOT / "renovate.json").read_text())
    theirs = {
        rule["groupName"]: set(rule["matchPackageNames"])
        for rule in renovate["packageRules"]
        if "matchPackageNames" in rule
    }
    pip, _ = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    ours = {name: set(group["patterns"]) for name, group in pip["groups"].items() if name != "tools"}
    assert ours == theirs
    assert set(pip["groups"]["tools"]["exclude-patterns"]) == set.union(*ours.values())
    stack = {"torch", "torchao", "diffusers", "transformers", "para-attn", "cache-dit", "accelerate", "peft"}
    assert stack <= set.union(*ours.values()) & (pinned() | {"torchvision"})
