"""A workflow's ``run`` steps, executed here as a runner would."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

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

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script by ``bash -e``, as a step without ``shell`` does."""
        assert "${{" not in script, "an expression inside a script is code that a title or a branch name can write"
        ours = {
            "RUNNER_TEMP": str(self.temporary),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_REPOSITORY": "octo/repo",
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-c", script],
            cwd=self.workspace,
            env={**os.environ, **ours, **self.environment, **environment},
            capture_output=True,
            text=True,
        )

    @property
    def outputs(self) -> dict[str, str]:
        """What the steps wrote to ``$GITHUB_OUTPUT``."""
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        return dict(line.split("=", 1) for line in lines)
