"""A workflow's ``run`` steps, and the order of its jobs, executed here as GitHub would."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from expressions import evaluate, fill

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> dict[str, Any]:
    """The parsed file; YAML 1.1 reads the key ``on`` as true."""
    content: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    content["on"] = content.pop(True)
    return content


def script(name: str, job: str, step: str | None = None) -> str:
    """The shell script of a job's named step, or of its only one."""
    steps = [s for s in workflow(name)["jobs"][job]["steps"] if "run" in s]
    (found,) = [s["run"] for s in steps if step is None or s.get("name") == step]
    return str(found)


@dataclass
class Runner:
    """Where the steps of one job run: workspace, temporary folder, and the files that GitHub reads afterwards."""

    folder: Path
    workspace: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.temporary = self.folder / "temp"
        self.temporary.mkdir(exist_ok=True)
        self.output, self.summary = self.folder / "output", self.folder / "summary"

    def run(self, script: str, folder: str = ".", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script by ``bash -e``, as a step without ``shell`` does; ``folder`` is its working directory."""
        assert "${{" not in script, "an expression inside a script is code that a title or a branch name can write"
        ours = {
            "RUNNER_TEMP": str(self.temporary),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_REPOSITORY": "octo/repo",
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-c", script],
            cwd=self.workspace / folder,
            env={**os.environ, **ours, **self.environment, **environment},
            capture_output=True,
            text=True,
        )

    @property
    def outputs(self) -> dict[str, str]:
        """What the steps wrote to ``$GITHUB_OUTPUT``."""
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        return dict(line.split("=", 1) for line in lines)


@dataclass
class Ending:
    """How one run of a gate's workflow ended."""

    results: dict[str, str]
    """Result of each job; what ``comment`` does is not done here."""
    check: str
    """Name of the check that ``verdict`` reports."""
    output: str
    """What ``verdict`` printed."""

    @property
    def green(self) -> bool:
        """Whether somebody who requires ``check`` may merge: a skipped job counts as passed."""
        return self.results["verdict"] in ("success", "skipped")


def run_gate(name: str, runner: Runner, event: Mapping[str, Any], *, gate: str = "success", merge: Path) -> Ending:
    """One run of a gate's workflow from its event to its verdict.

    ``event`` is the ``github`` context. The runner's workspace is the base branch, ``merge`` the request merged.
    ``gate`` is the result of the jobs on GPUs, if they start. Neither variables nor secrets are there, as for a fork.
    """
    content = workflow(name)
    if event["event_name"] == "pull_request":
        assert event["event"]["action"] in content["on"]["pull_request"]["types"], "this event starts nothing"
    contexts: dict[str, Any] = {"github": dict(event), "vars": {}, "secrets": {}, "needs": {}}
    contexts["env"] = {key: fill(value, contexts) for key, value in content.get("env", {}).items()}
    ending = Ending({}, fill(content["jobs"]["verdict"]["name"], contexts).strip(), "")
    for job, description in content["jobs"].items():
        result, outputs = "skipped", {}
        if _starts(description, contexts["needs"], contexts):
            if job == "comment":
                result = "success"
            elif job == "gate":
                assert evaluate(_inner(description["strategy"]["matrix"]["gpu"]), contexts), (
                    "an empty matrix is an error"
                )
                result = gate
            else:
                place = Runner(_folder(runner, job), merge if job == "pins" else runner.workspace)
                result, ending.output = _steps(description, place, contexts)
                outputs = {key: place.outputs.get(key, "") for key in description.get("outputs", {})}
        contexts["needs"][job] = {"result": result, "outputs": outputs}
        ending.results[job] = result
    return ending


def _folder(runner: Runner, job: str) -> Path:
    folder = runner.folder / "jobs" / job
    folder.mkdir(parents=True)
    return folder


def _inner(text: str) -> str:
    return text.strip().removeprefix("${{").removesuffix("}}")


def _starts(description: Mapping[str, Any], done: Mapping[str, Any], contexts: Mapping[str, Any]) -> bool:
    needs = description.get("needs", [])
    succeeded = all(done[need]["result"] == "success" for need in ([needs] if isinstance(needs, str) else needs))
    condition = _inner(str(description.get("if", "success()")))
    status = {"always": True, "success": succeeded, "cancelled": False}
    implied = not any(f"{function}()" in condition for function in status)  # GitHub adds success() && then
    return bool(evaluate(condition, contexts, status)) and (succeeded or not implied)


def _steps(description: Mapping[str, Any], place: Runner, contexts: Mapping[str, Any]) -> tuple[str, str]:
    output = ""
    for step in description["steps"]:
        if "run" not in step:
            continue
        github = contexts["github"]
        environment = {
            "GITHUB_EVENT_NAME": github["event_name"],
            "GITHUB_REPOSITORY": github["repository"],
            **contexts["env"],
            **{key: fill(str(value), contexts) for key, value in step.get("env", {}).items()},
        }
        done = place.run(step["run"], **environment)
        output += done.stdout + done.stderr
        if done.returncode:
            return "failure", output
    return "success", output
