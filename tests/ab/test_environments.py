"""Two real virtual environments that differ in a package, with the real plugin in each of their processes.

The clock counts work instead of time, so a change of five percent is exactly that on any machine.
"""

from __future__ import annotations

import json
import signal
import sys
import textwrap
import time
from pathlib import Path

import causes
import pytest
from environments import make_environment
from fakechildren import alive

import pytest_fluxperf

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
import tinyflux

CONFTEST = """
import pytest
import slowphase
from pytest_fluxperf.bench import session

class WorkClock:
    now = 0.0
    def mark(self):
        return WorkClock.now
    def synchronize(self):
        pass
    def seconds(self, start, end):
        return end - start

session.clock_for = lambda device: WorkClock()

@pytest.fixture
def work():  # takes seconds of that clock
    def spend(seconds):
        WorkClock.now += seconds

    return spend

@pytest.fixture
def fault():
    return slowphase.FAULT

def pytest_fluxperf_pipeline(pipe, recipe, config):
    if hasattr(pipe, "costed"):
        return
    object.__setattr__(pipe, "costed", True)

    def cost(module, seconds):
        def work(*_):
            WorkClock.now += seconds
        module.register_forward_pre_hook(work)

    cost(pipe.text_encoder, 0.010)
    cost(pipe.text_encoder_2, 0.010)
    cost(pipe.vae.decoder, 0.250 * slowphase.DECODE)

    def kernel(*_):
        import torch

        torch.special.bessel_j0(torch.ones(slowphase.KERNEL))
        WorkClock.now += 0.005

    for block in (*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks):
        cost(block.attn, 0.010 * slowphase.WORK)
        if slowphase.KERNEL:
            block.attn.register_forward_pre_hook(kernel)
"""

SUITE = """
import pytest

@pytest.mark.fluxperf(steps=2, size=32, prompts=["a red circle", "two green squares"], seeds=[0, 1, 2, 3], MORE)
@pytest.mark.parametrize("flux", ["fp32"], indirect=True)
def test_recipe(flux, flux_inputs):
    return flux(**flux_inputs).images
"""

OWN = """
import numpy as np
import pytest
import slowphase

@pytest.mark.fluxperf(prompts=["a red circle", "two green squares"], seeds=[0, 1, 2, 3], warmup=0, MORE)
def test_recipe(flux_inputs, work):
    work(0.100 + 0.250 * slowphase.DECODE)
    return np.random.default_rng(flux_inputs["generator"].initial_seed()).random((32, 32, 3))
"""
"""A body without a pipeline, of the same times: for what a pipeline, which takes seconds to import, adds nothing to."""


@pytest.fixture(autouse=True)
def light(pytester: pytest.Pytester) -> None:
    """No process loads plugins that have nothing to do with what is tested."""
    pytester.makeini("[pytest]\naddopts = -p no:benchmark -p no:hypothesispytest")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinyflux.save(tmp_path_factory.mktemp("tinyflux"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("old"), "1.0")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decodes 8 % slower: 0.02 s of 0.35 s, 5.7 % of the whole."""
    return make_environment(tmp_path_factory.mktemp("new"), "1.1", decode=1.08)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every block has one more kernel to run: 0.04 s of 0.35 s."""
    return make_environment(tmp_path_factory.mktemp("kernel"), "1.2", kernel=2_000_000)


def compare(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *arguments: str, more: str = "", suite: str = SUITE
) -> tuple:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=suite.replace(", MORE", f", {more}" if more else ""))
    ours = str(Path(pytest_fluxperf.__file__).parents[1])  # also where another copy is installed
    program = f"import sys; sys.path.insert(0, {ours!r}); from pytest_fluxperf.cli import main; sys.exit(main())"
    ran = pytester.run(sys.executable, "-c", program, *arguments)
    documents = sorted((pytester.path / "reports").glob("*/results.json"))
    return ran, json.loads(documents[-1].read_text()) if documents else None


def test_five_percent_in_one_phase_is_found_and_named(pytester, monkeypatch, model, old, new) -> None:
    ran, document = compare(
        pytester, monkeypatch, "ab", "--old", str(old), "--new", str(new / "bin" / "python"), "--",
        "--gpu=cpu", f"--fluxperf-model={model}", more="max_slowdown=0.02",
    )  # fmt: skip
    assert ran.ret == 1, ran.stdout.str() + ran.stderr.str()
    (result,) = document["results"]
    judgement = result["judgement"]
    assert judgement["verdict"] == "regressed"
    assert "interleaved" in judgement["message"]
    assert "decoding" in judgement["message"], judgement
    assert "slowphase 1.0 → 1.1" in "; ".join(judgement["attribution"])
    assert not judgement.get("warnings"), "the latency is judged, whatever the device"
    (summary,) = (pytester.path / "reports").glob("*/summary.md")
    assert "| slowphase | <code>1.0</code> | <code>1.1</code> |" in summary.read_text(), "what drifted is shown"
    compared = result["comparison"]
    assert compared["mode"] == "interleaved"
    assert compared["packages"]["slowphase"] == ["1.0", "1.1"]
    assert compared["generations"] == 16
    assert 0.04 < compared["change"] < 0.07
    assert result["max_slowdown"] == 0.02


def test_a_kernel_that_appeared_is_named_first(pytester, monkeypatch, model, old, kernel) -> None:
    """A regression is profiled on both sides by itself."""
    ran, document = compare(
        pytester, monkeypatch, "ab", "--old", str(old), "--new", str(kernel), "--",
        "--gpu=cpu", f"--fluxperf-model={model}", more="max_slowdown=0.02",
    )  # fmt: skip
    assert ran.ret == 1, ran.stdout.str() + ran.stderr.str()
    (result,) = document["results"]
    judgement = result["judgement"]
    assert judgement["verdict"] == "regressed"
    assert judgement["attribution"][0].startswith("kernel aten::special_bessel_j0 appeared (8 calls)"), judgement
    found = judgement["kernels"]
    parts = sum(c["now_s"] - c["baseline_s"] for c in found["changes"])
    assert parts + found["others_s"] + found["idle_s"] + found["unexplained_s"] == pytest.approx(found["difference_s"])
    assert result["comparison"]["generations"] == 16, "the profiled ones are not among the measured"
    (folder,) = (pytester.path / "reports").iterdir()
    sides = {trace.split("/")[1] for trace in result["comparison"]["traces"]}
    assert sides == {"old-1", "new-1"}
    assert all((folder / trace).stat().st_size for trace in result["comparison"]["traces"])
    page = (folder / "report.html").read_text()
    assert "aten::special_bessel_j0" in page
    assert f'href="{result["comparison"]["traces"][0]}"' in page


@pytest.fixture(scope="module")
def undone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attention back end switched, a compile removed, casts added, a cache that never answers."""
    return make_environment(tmp_path_factory.mktemp("undone"), "1.3", fault=True)


def test_planted_causes_are_named(pytester, monkeypatch, model, old, undone) -> None:
    """The first line of each attribution, from what the blocks measured and the profiles of both sides."""
    ran, document = compare(
        pytester, monkeypatch, "ab", "--all", "--old", str(old), "--new", str(undone), "--",
        "--gpu=cpu", f"--fluxperf-model={model}", suite=causes.SUITE,
    )  # fmt: skip
    assert ran.ret == 1, ran.stdout.str() + ran.stderr.str()
    found = {r["test"].partition("::")[2].partition("[")[0]: r["judgement"] for r in document["results"]}
    assert set(found) == set(causes.CAUSES)
    for test, (verdict, cause) in causes.CAUSES.items():
        assert (test, found[test]["verdict"]) == (test, verdict)
        assert found[test]["attribution"][0].startswith(cause), found[test]["attribution"]


def test_a_body_that_cannot_be_profiled_keeps_its_verdict(pytester, monkeypatch, model, old, new) -> None:
    failing = """
    import torch

    if torch._C._autograd._profiler_enabled():
        raise RuntimeError("no profiler here")
    return flux"""
    ran, document = compare(
        pytester, monkeypatch, "ab", "--old", str(old), "--new", str(new), "--",
        "--gpu=cpu", f"--fluxperf-model={model}", more="max_slowdown=0.02",
        suite=SUITE.replace("\n    return flux", failing),
    )  # fmt: skip
    assert ran.ret == 1, ran.stdout.str() + ran.stderr.str()
    judgement = document["results"][0]["judgement"]
    assert judgement["verdict"] == "regressed"
    assert judgement["warnings"] == [
        f"the {side} environment could not be profiled: it raised RuntimeError: no profiler here"
        for side in ("old", "new")
    ]


def test_nothing_is_found_where_nothing_changed(pytester, monkeypatch, model, old) -> None:
    ran, document = compare(
        pytester, monkeypatch, "ab", "--old", str(old), "--new", str(old), "--",
        "--gpu=cpu", f"--fluxperf-model={model}", more="max_slowdown=0.02",
    )  # fmt: skip
    assert ran.ret == 0, ran.stdout.str() + ran.stderr.str()
    assert document["results"][0]["judgement"]["verdict"] == "passed"
    assert document["gated"] == 1


def test_a_module_that_the_old_environment_cannot_import_is_no_baseline(pytester, monkeypatch, old, new) -> None:
    newer = """
        import slowphase
        if slowphase.DECODE == 1.0:
            raise ImportError("slowphase has no such recipe yet")
    """
    pytester.makepyfile(test_newer=textwrap.dedent(newer) + OWN.replace(", MORE", ""))
    there = ("ab", "--old", str(old), "--new", str(new), "--", "--gpu=cpu")
    back = ("ab", "--old", str(new), "--new", str(old), "--", "--gpu=cpu")
    ran, document = compare(pytester, monkeypatch, *there, more="max_slowdown=0.2", suite=OWN)
    verdicts = {result["test"]: result["judgement"] for result in document["results"]}
    assert {test: judgement["verdict"] for test, judgement in verdicts.items()} == {
        "test_newer.py::test_recipe": "no baseline",
        "test_suite.py::test_recipe": "passed",
    }
    assert "slowphase has no such recipe yet" in verdicts["test_newer.py::test_recipe"]["message"]
    # what the environment under test cannot import is broken, and the rest is compared
    ran, document = compare(pytester, monkeypatch, *back, suite=OWN)
    assert ran.ret == 1
    verdicts = {result["test"]: result["judgement"] for result in document["results"]}
    lost = verdicts.pop("test_newer.py::test_recipe")
    assert lost["verdict"] == "broken"
    assert lost["message"] == (
        "the old environment has it, the new one does not: ImportError: slowphase has no such recipe yet"
    )
    assert {judgement["verdict"] for judgement in verdicts.values()} <= {"passed", "improved", "regressed"}
    # also where nothing else is left
    ran, document = compare(pytester, monkeypatch, *back, "test_newer.py", suite=OWN)
    assert ran.ret == 1
    (only,) = document["results"]
    assert only["judgement"]["verdict"] == "broken"
    # what neither can import is a mistake
    pytester.path.joinpath("test_newer.py").write_text("import nowhere")
    ran, _ = compare(pytester, monkeypatch, *back, suite=OWN)
    assert ran.ret == 4
    ran.stderr.fnmatch_lines(["fluxperf: test_newer.py: ModuleNotFoundError: No module named 'nowhere'"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere.py"], "file or directory not found: nowhere.py"),
        (["--nothing-like-it"], "unrecognized arguments: --nothing-like-it"),
        (["test_suite.py", "-k", "nothing"], "no fluxperf test was collected; name the tests after --"),
    ],
)
def test_mistakes_in_pytests_arguments_are_told_by_pytest(pytester, monkeypatch, old, arguments, complaint) -> None:
    ran, _ = compare(
        pytester, monkeypatch, "ab", "--old", str(old), "--new", str(old), "--",
        "--gpu=cpu", *arguments, suite=OWN,
    )  # fmt: skip
    assert ran.ret == 4
    ran.stderr.fnmatch_lines([f"fluxperf: *{complaint}*"])
    assert len(ran.stderr.lines) == 1
    assert "does it have" not in ran.stderr.str()


LOST = """
import os
import time
from pathlib import Path

import numpy as np
import pytest
import slowphase


@pytest.mark.fluxperf(prompts=["a red circle"], seeds=[0], MORE)
def test_lost(work):
    if slowphase.DECODE > 1:
        DOES
    work(0.350)
    return np.random.default_rng(0).random((32, 32, 3))
"""


@pytest.mark.parametrize(
    ("does", "others"),
    [("os.kill(os.getpid(), 9)", {}), ("pytest.skip('torchao does not import')", {"test_recipe": "passed"})],
)
def test_what_only_the_new_environment_cannot_run_fails(pytester, monkeypatch, old, new, does, others) -> None:
    """Also in the first test, and beside one that passes: a skip or the end of a process is no way out of the gate."""
    ran, document = compare(
        pytester, monkeypatch, "ab", "--old", str(old), "--new", str(new), "--",
        "--gpu=cpu", more="max_slowdown=0.5", suite=LOST.replace("DOES", does) + OWN,
    )  # fmt: skip
    assert ran.ret == 1, ran.stdout.str() + ran.stderr.str()
    found = {r["test"].partition("::")[2]: r["judgement"]["verdict"] for r in document["results"]}
    assert found == {"test_lost": "broken", **others}
    ran.stdout.fnmatch_lines(["*1*broken*"])
    if not others:
        ran.stdout.fnmatch_lines(["*the comparison ended early, 1 not compared:*"])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is not told that its parent died")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_comparison_that_is_ended_leaves_no_process_that_was_at_work(pytester, monkeypatch, old, new, number) -> None:
    """A job that is cancelled while a side hangs: on a GPU the orphan would hold its memory."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pytester.makeconftest(CONFTEST)
    hang = "Path('working').write_text(str(os.getpid())); time.sleep(600)"
    pytester.makepyfile(test_suite=LOST.replace(", MORE", "").replace("DOES", hang))
    call = f"import sys; sys.path.insert(0, {str(Path(pytest_fluxperf.__file__).parents[1])!r}); "
    call += "from pytest_fluxperf.cli import main; sys.exit(main())"
    arguments = ("ab", "--old", old, "--new", new, "--", "--gpu=cpu")
    conductor = pytester.popen([sys.executable, "-c", call, *map(str, arguments)])
    working = pytester.path / "working"
    try:
        while not (working.exists() and working.read_text()) and conductor.poll() is None:
            time.sleep(0.1)
        assert alive(int(working.read_text()))
        conductor.send_signal(number)
        conductor.wait(60)
    finally:
        conductor.kill()
        conductor.wait()
    assert not alive(int(working.read_text()))


def test_an_environment_without_the_plugin_is_an_error(pytester, monkeypatch, tmp_path, old) -> None:
    import venv

    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    ran, _ = compare(pytester, monkeypatch, "ab", "--old", str(old), "--new", str(tmp_path / "bare"), "--", "--gpu=cpu")
    assert ran.ret == 4
    ran.stderr.fnmatch_lines(
        ["fluxperf: the new environment*ended with exit status*No module named pytest*does it have pytest-fluxperf*"]
    )


def test_an_old_environment_without_the_plugin_is_an_error_before_anything_is_measured(
    pytester, monkeypatch, model, tmp_path, new
) -> None:
    import venv

    monkeypatch.delenv("PYTHONPATH", raising=False)
    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    pytester.makepyfile(test_suite=SUITE.replace(", MORE", ""))
    common = ["-m", "pytest", "--gpu=cpu", f"--fluxperf-model={model}", f"--fluxperf-old-python={tmp_path / 'bare'}"]
    ran = pytester.run(new / "bin" / "python", *common)
    assert ran.ret == 4
    ran.stderr.fnmatch_lines(
        ["ERROR: *No module named 'pytest_fluxperf'; install pytest-fluxperf with A/B protocol 1*"]
    )


def test_a_suspect_of_stage_one_is_compared_with_the_old_environment(pytester, monkeypatch, model, old, new) -> None:
    """The test's own report, in the call phase, carries the verdict of the comparison."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=SUITE.replace(", MORE", ", max_slowdown=0.02"))
    common = ["-m", "pytest", "--gpu=cpu", f"--fluxperf-model={model}", "--fluxperf-latency=absolute"]
    assert pytester.run(old / "bin" / "python", *common, "--fluxperf-update").ret == 0
    ran = pytester.run(new / "bin" / "python", *common, f"--fluxperf-old-python={old}", "--junitxml=junit.xml")
    assert ran.ret == 1, ran.stdout.str()
    document = json.loads(sorted((pytester.path / "reports").glob("*/results.json"))[-1].read_text())
    (result,) = document["results"]
    assert result["judgement"]["verdict"] == "regressed"
    assert "interleaved" in result["judgement"]["message"]
    compared = result["comparison"]
    assert compared["packages"]["slowphase"] == ["1.0", "1.1"]
    assert result["judgement"]["kernels"]["difference_s"] == pytest.approx(0.02, rel=0.2)
    (run,) = [path for path in (pytester.path / "reports").iterdir() if (path / "ab").is_dir()]
    assert len(compared["traces"]) == 2
    assert all((run / trace).is_file() for trace in compared["traces"])
    junit = (pytester.path / "junit.xml").read_text()
    assert 'tests="1"' in junit
    assert 'failures="1"' in junit
    assert "interleaved" in junit
    # against itself nothing differs, so no package is to blame for what the baseline shows
    ran = pytester.run(new / "bin" / "python", *common, f"--fluxperf-old-python={new}")
    assert ran.ret == 1, ran.stdout.str()
    ran.stdout.fnmatch_lines(
        ["*regressed so far, decided after the last test*", "*not the packages: this repository's code*"]
    )


def test_workers_compare_their_suspects_one_at_a_time(pytester, monkeypatch, old, new) -> None:
    """One device: neither stage one nor the comparisons of two xdist workers ever generate at once."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pytester.makeconftest(CONFTEST)
    alone = """
    import os
    import time

    os.close(os.open("busy", os.O_CREAT | os.O_EXCL))  # fails where another process generates
    time.sleep(0.15)  # long enough to be met: without the lock this fails at once
    os.unlink("busy")
    return"""
    suite = OWN.replace(", MORE", ", max_slowdown=0.02").replace(
        "def test_recipe(", '@pytest.mark.parametrize("number", [1, 2])\ndef test_recipe(number, '
    )
    pytester.makepyfile(test_suite=suite.replace("    return", alone))
    common = ["-m", "pytest", "--gpu=cpu", "--fluxperf-latency=absolute"]
    assert pytester.run(old / "bin" / "python", *common, "--fluxperf-update").ret == 0
    ran = pytester.run(new / "bin" / "python", *common, f"--fluxperf-old-python={old}", "-n", "2")
    ran.assert_outcomes(failed=2)
    document = json.loads(sorted((pytester.path / "reports").glob("*/results.json"))[-1].read_text())
    assert [r["judgement"]["verdict"] for r in document["results"]] == ["regressed", "regressed"]
    assert all(r["comparison"]["generations"] == 16 for r in document["results"])
    assert {r["worker"] for r in document["results"]} == {"gw0", "gw1"}
