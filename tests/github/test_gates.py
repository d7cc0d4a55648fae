"""Every way past the two required checks ends red: the workflows run from an event to their verdict."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest
from actions import ROOT, Runner, run_gate, script, workflow

GATES = ["perf-gate", "dependency-gate"]
OURS, THEIRS = "octo/repo", "stranger/repo"


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def base(tmp_path):
    """The base branch, with one GPU listed."""
    folder = tmp_path / "base"
    shutil.copytree(ROOT / ".github" / "scripts", folder / ".github" / "scripts")
    (folder / ".github" / "gpus.json").write_text('["h100"]\n')
    return folder


@pytest.fixture
def merge(tmp_path):
    """A request that moves a pin, merged."""
    folder = tmp_path / "merge"
    (folder / "requirements").mkdir(parents=True)
    pins = folder / "requirements" / "perf.txt"
    pins.write_text("torch==2.11.0\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "main")
    git(folder, "checkout", "-q", "-b", "topic")
    pins.write_text("torch==2.13.0\n")
    git(folder, "commit", "-q", "-a", "-m", "bump")
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "topic", "-m", "merge")
    return folder


@pytest.fixture
def run(tmp_path, base, merge):
    return lambda name, event, **more: run_gate(name, Runner(tmp_path, base), event, merge=merge, **more)


def request(action: str, head: str | None, **event: object) -> dict:
    pull_request = {"number": 7, "head": {"repo": head and {"full_name": head}}, "base": {"sha": "1" * 40}}
    content = {"action": action, "pull_request": pull_request, **event}
    return {"event_name": "pull_request", "repository": OURS, "sha": "2" * 40, "run_id": "9", "event": content}


def label(name: str, head: str) -> dict:
    return request("labeled", head, label={"name": name})


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize(
    "event",
    [
        request("opened", OURS),
        request("synchronize", OURS),
        request("reopened", OURS),
        request("edited", OURS, changes={"base": {"ref": {"from": "dev"}}}),
        label("gpu", OURS),
        label("gpu", THEIRS),
    ],
    ids=["opened", "pushed", "reopened", "another base", "label", "label on a fork's"],
)
def test_a_gate_that_ran_is_green_and_one_that_failed_is_red(run, tmp_path, name, event):
    ending = run(name, event)
    assert (ending.check, ending.green, ending.results["gate"]) == (name, True, "success")
    assert "gated" in ending.output
    ours = event["event"]["pull_request"]["head"]["repo"]["full_name"] == OURS
    assert ending.results["comment"] == ("success" if ours else "skipped"), "a fork's token cannot write"
    for number, result in enumerate(("failure", "cancelled")):
        (tmp_path / "jobs").rename(tmp_path / f"jobs-{number}")
        ending = run(name, event, gate=result)
        assert (ending.check, ending.green) == (name, False)
        assert ending.results["comment"] == ("success" if ours else "skipped")
        assert f"ended with: {result}" in ending.output


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize(
    "event",
    [
        request("opened", THEIRS),
        request("synchronize", THEIRS),
        request("reopened", THEIRS),
        request("edited", THEIRS, changes={"base": {"ref": {"from": "dev"}}}),
        request("synchronize", None),
    ],
    ids=["opened", "pushed", "reopened", "another base", "fork deleted"],
)
def test_a_fork_without_the_label_is_red_and_runs_nothing(run, name, event):
    ending = run(name, event)
    assert (ending.check, ending.green, ending.results["gate"]) == (name, False, "skipped")
    assert "adds the label gpu" in ending.output


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("head", [OURS, THEIRS])
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{}",
        '"h100"',
        "[100]",
        '["h100", "h100"]',
        '["h100\\nstart=true"]',
        '["../h100"]',
        "[" * 9000,
        str([f"g{i}" for i in range(17)]).replace("'", '"'),
    ],
)
def test_without_a_list_of_gpus_it_is_red(run, base, name, head, text):
    place = base / ".github" / "gpus.json"
    place.unlink() if text is None else place.write_text(text)
    ending = run(name, label("gpu", head))
    assert (ending.check, ending.green, ending.results["gate"]) == (name, False, "skipped")
    assert ".github/gpus.json" in ending.output


@pytest.mark.parametrize("name", GATES)
def test_without_the_program_that_reads_the_list_it_is_red(run, base, name):
    (base / ".github" / "scripts" / "plan_gate.py").unlink()
    assert not run(name, request("opened", OURS)).green


@pytest.mark.parametrize("name", GATES)
def test_the_list_is_the_base_branchs_and_code_and_pins_the_requests(name):
    jobs = workflow(name)["jobs"]
    references = {
        job: [s["with"].get("ref") for s in description["steps"] if s.get("uses", "").startswith("actions/checkout@")]
        for job, description in jobs.items()
    }
    assert references["plan"] == ["${{ github.event.pull_request.base.sha || github.sha }}"]
    assert references["gate"] == [None]
    assert references.get("pins", [None]) == [None]


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("head", [OURS, THEIRS])
@pytest.mark.parametrize("kind", ["label", "title"])
def test_an_event_that_asks_for_no_gate_reports_another_check(run, name, head, kind):
    event = label("bug", head) if kind == "label" else request("edited", head, changes={"title": {"from": "old"}})
    ending = run(name, event)
    assert ending.check == f"{name} (nothing asked)"
    assert ending.results["gate"] == "skipped"


@pytest.mark.parametrize("event_name", ["push", "workflow_dispatch"])
def test_main_is_gated_by_itself(run, event_name):
    event = {"event_name": event_name, "repository": OURS, "sha": "2" * 40, "ref": "refs/heads/main", "event": {}}
    assert run("perf-gate", event).green
    assert "pull_request" in workflow("dependency-gate")["on"]
    assert list(workflow("dependency-gate")["on"]) == ["pull_request"]


def test_a_request_that_moves_no_pin_has_nothing_to_gate(run, merge):
    git(merge, "reset", "-q", "--hard", "HEAD^1")
    git(merge, "commit", "-q", "--allow-empty", "-m", "merge of something else")
    ending = run("dependency-gate", request("opened", THEIRS))
    assert (ending.check, ending.green, ending.results["gate"]) == ("dependency-gate", True, "skipped")
    assert "No pin moved" in ending.output


def test_pins_that_cannot_be_compared_are_gated(run, merge):
    shutil.rmtree(merge / ".git")
    ending = run("dependency-gate", request("opened", OURS))
    assert ending.results["gate"] == "success"


@pytest.mark.parametrize("name", GATES)
def test_the_verdict_always_runs(name):
    job = workflow(name)["jobs"]["verdict"]
    assert job["if"] == "always()"
    assert set(job["needs"]) == {"plan", "gate"} | ({"pins"} if name == "dependency-gate" else set())


RESULTS = ["success", "failure", "cancelled", "skipped"]


def test_of_all_that_jobs_can_end_with_only_a_gate_is_green(tmp_path):
    runner, green = Runner(tmp_path, tmp_path), []
    for plan, start, gate in itertools.product(RESULTS, ["true", "false", ""], RESULTS):
        done = runner.run(script("perf-gate", "verdict"), OTHER_EVENT="false", PLAN=plan, START=start, GATE=gate)
        green += [(plan, start, gate)] if done.returncode == 0 else []
    assert green == [("success", "true", "success")]


def test_of_all_that_jobs_can_end_with_only_a_gate_or_unmoved_pins_are_green(tmp_path):
    runner, green = Runner(tmp_path, tmp_path), set()
    text = script("dependency-gate", "verdict")
    results = ["success", "failure", "skipped"]
    for pins, moved, plan, gate in itertools.product(results, ["true", "false", ""], results, RESULTS):
        values = {"PINS": pins, "MOVED": moved, "PLAN": plan, "START": "true", "GATE": gate}
        if runner.run(text, OTHER_EVENT="false", **values).returncode == 0:
            green.add((pins, moved, plan if moved == "true" else "any", gate if moved == "true" else "any"))
    assert green == {("success", "true", "success", "success"), ("success", "false", "any", "any")}
