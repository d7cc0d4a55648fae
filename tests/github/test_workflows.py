"""The workflows are valid, safe by construction, and their scripts do what they say."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml
from actions import ROOT, WORKFLOWS, Runner, script, workflow

from pytest_fluxperf.baseline.codec import decode, encode

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
    """As its strictest persona; what a comment in the file answers is not counted."""
    done = lint(
        "zizmor", "--offline", "--no-progress", "--no-exit-codes", "--persona=auditor", "--format=json", ".github"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_finding_that_is_set_aside_is_answered_by_a_comment(path):
    lines = path.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if "zizmor: ignore" in line:
            assert before.strip().startswith("# ")


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
def test_what_runs_on_our_machines_leaves_an_artifact(name, job):
    steps = workflow(name)["jobs"][job]["steps"]
    assert [s for s in steps if s.get("uses", "").startswith("actions/upload-artifact@")]


@pytest.mark.parametrize(("name", "job"), SELF_HOSTED)
def test_no_job_reads_a_cache_that_another_wrote(runner, name, job):
    """Every cache of code lies in the job's temporary folder before the first step that installs or runs anything."""
    description = workflow(name)["jobs"][job]
    scripts = [step["run"] for step in description["steps"] if "run" in step]
    assert runner.run(scripts[0], GITHUB_ENV=str(runner.folder / "env")).returncode == 0
    written = dict(line.split("=", 1) for line in (runner.folder / "env").read_text().splitlines())
    assert set(written) == {"UV_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"}
    assert all(Path(place).is_relative_to(runner.temporary) for place in written.values())
    assert not set(written) & set(description["env"])
    assert not [s for s in description["steps"] if s.get("uses", "").startswith("actions/cache")]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_rests_on_a_variable_that_forks_lack_or_somebody_deletes(path):
    assert not re.search(r"\bvars\b", path.read_text())


@pytest.mark.parametrize("name", ["report", "release"])
def test_what_jobs_with_rights_install_is_pinned_by_hash(name):
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    for pin in pins:
        assert re.fullmatch(r"[a-z0-9-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", pin)
    ours = {line.split("==")[0]: line for line in (ROOT / "requirements" / "perf.txt").read_text().splitlines()}
    for pin in pins:
        package = pin.split("==")[0]
        assert package not in ours or pin.split()[0] == ours[package], "the versions are those that measure"


@pytest.mark.parametrize(("name", "job"), [j for j in JOBS if j not in SELF_HOSTED and j[0] != "ci"])
def test_jobs_outside_of_ci_install_by_hash_alone(name, job):
    for step in workflow(name)["jobs"][job]["steps"]:
        for command in re.findall(r"pip3? install .*", step.get("run", "")):
            assert "--require-hashes -r " in command or "--no-deps --no-build-isolation ." in command


def test_a_fork_cannot_order_baselines():
    condition = " ".join(workflow("update-baselines")["jobs"]["order"]["if"].split())
    assert "&& github.event.pull_request.head.repo.full_name == github.repository" in condition


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_no_expression_stands_inside_a_script(name, job):
    for step in workflow(name)["jobs"][job]["steps"]:
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("name", ["perf-gate", "dependency-gate"])
def test_the_job_that_can_comment_runs_the_target_branchs_code(name):
    job = workflow(name)["jobs"]["comment"]
    assert job["runs-on"] == "ubuntu-24.04"
    (checkout,) = [s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


# -- what the scripts do ---------------------------------------------------------------------------------------


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


@pytest.fixture
def checkouts(tmp_path):
    """What ``propose`` checks out: the default branch's programs, and the repository as it was measured."""
    folder = tmp_path / "checkouts"
    shutil.copytree(ROOT / ".github", folder / "trusted" / ".github")
    measured = folder / "measured"
    shutil.copytree(ROOT / "baselines" / "cpu", measured / "baselines" / "cpu")
    git(measured, "init", "-q", "-b", "main")
    git(measured, "add", ".")
    git(measured, "commit", "-q", "-m", "start")
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(measured, "remote", "add", "origin", str(tmp_path / "remote.git"))
    return folder


def propose(runner) -> list[list[str]]:
    """Runs the steps of ``propose`` but the installation; returns how gh was called."""
    tools = runner.folder / "tools"
    tools.mkdir()
    (tools / "gh").write_text('#!/bin/sh\nprintf "%s\\037" "$@" >> "$GH_LOG"; echo >> "$GH_LOG"\n')
    (tools / "gh").chmod(0o755)
    log = runner.folder / "gh.log"
    log.touch()
    environment = {
        "GPU": "cpu",
        "TOPIC": "baselines/cpu-7",
        "BRANCH": "$(touch planted)",
        "GH_LOG": str(log),
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RUN_URL": "https://github.example/octo/repo/actions/runs/7",
    }
    steps = workflow("update-baselines")["jobs"]["propose"]["steps"]
    for step in [s for s in steps if "run" in s and s["name"] != "Tools"]:
        done = runner.run(step["run"], folder=step.get("working-directory", "."), **environment)
        assert done.returncode == 0, done.stderr
        if runner.outputs.get("moved") == "false":
            break
    assert not list(runner.folder.rglob("planted"))
    return [line.split("\x1f")[:-1] for line in log.read_text().splitlines()]


def test_new_baselines_become_a_request(tmp_path, checkouts):
    runner = Runner(tmp_path, checkouts)
    proposal = runner.temporary / "proposal" / "cpu"
    shutil.copytree(ROOT / "baselines" / "cpu", proposal)
    moved = sorted(proposal.rglob("*.json"))[0]
    stored = decode(moved.read_bytes(), moved.name)
    moved.write_bytes(encode(msgspec.structs.replace(stored, runs=stored.runs[:1])))
    (call,) = propose(runner)
    assert call[:2] == ["pr", "create"]
    assert call[call.index("--base") + 1] == "$(touch planted)"
    text = Path(call[call.index("--body-file") + 1]).read_text()
    assert "| 3 → 1 |" in text
    assert "https://github.example/octo/repo/actions/runs/7" in text
    changed = git(tmp_path / "remote.git", "show", "--name-only", "--format=", "baselines/cpu-7").splitlines()
    assert changed == [f"baselines/cpu/{moved.relative_to(proposal)}"]


def test_baselines_that_did_not_move_open_no_request(tmp_path, checkouts):
    runner = Runner(tmp_path, checkouts)
    shutil.copytree(ROOT / "baselines" / "cpu", runner.temporary / "proposal" / "cpu")
    assert propose(runner) == []


# -- bots ------------------------------------------------------------------------------------------------------


def pinned() -> set[str]:
    lines = (ROOT / "requirements" / "perf.txt").read_text().splitlines()
    return {line.split("==")[0] for line in lines if "==" in line}


def test_the_bot_groups_what_the_gate_can_tell_apart():
    pip, actions = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    groups = {name: set(group["patterns"]) for name, group in pip["groups"].items() if name != "tools"}
    assert set(pip["groups"]["tools"]["exclude-patterns"]) == set.union(*groups.values())
    stack = {"torch", "torchao", "diffusers", "transformers", "para-attn", "cache-dit", "accelerate", "peft"}
    assert stack <= set.union(*groups.values()) & (pinned() | {"torchvision"})
    assert pip["cooldown"]["default-days"] == actions["cooldown"]["default-days"] == 7
    assert not (ROOT / "renovate.json").exists()
