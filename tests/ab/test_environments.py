"""Two real virtual environments that differ in a package, with the real plugin in each of their processes.

The clock counts work instead of time, so a change of five percent is exactly that on any machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from environments import make_environment

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
import tinyflux

CONFTEST = """
import slowphase
from pytest_fluxperf import session

class WorkClock:
    now = 0.0
    def mark(self):
        return WorkClock.now
    def synchronize(self):
        pass
    def seconds(self, start, end):
        return end - start

session.clock_for = lambda device: WorkClock()

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
    for block in (*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks):
        cost(block.attn, 0.010 * slowphase.WORK)
"""

SUITE = """
import pytest

@pytest.mark.fluxperf(steps=2, size=32, prompts=["a red circle", "two green squares"], seeds=[0, 1, 2, 3], MORE)
@pytest.mark.parametrize("flux", ["fp32"], indirect=True)
def test_recipe(flux, flux_inputs):
    return flux(**flux_inputs).images
"""


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


def compare(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *arguments: str, more: str = "") -> tuple:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=SUITE.replace(", MORE", f", {more}" if more else ""))
    ran = pytester.run(
        sys.executable, "-c", "from pytest_fluxperf.cli import main; raise SystemExit(main())", *arguments
    )
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
    compared = result["comparison"]
    assert compared["mode"] == "interleaved"
    assert compared["packages"]["slowphase"] == ["1.0", "1.1"]
    assert compared["generations"] == 16
    assert 0.04 < compared["change"] < 0.07


def test_nothing_is_found_where_nothing_changed(pytester, monkeypatch, model, old) -> None:
    ran, document = compare(
        pytester, monkeypatch, "ab", "--old", str(old), "--new", str(old), "--",
        "--gpu=cpu", f"--fluxperf-model={model}", more="max_slowdown=0.02",
    )  # fmt: skip
    assert ran.ret == 0, ran.stdout.str() + ran.stderr.str()
    assert document["results"][0]["judgement"]["verdict"] == "passed"
    assert document["gated"] == 1


def test_an_environment_without_the_plugin_is_an_error(pytester, monkeypatch, tmp_path, old) -> None:
    import venv

    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    ran, _ = compare(pytester, monkeypatch, "ab", "--old", str(old), "--new", str(tmp_path / "bare"), "--", "--gpu=cpu")
    assert ran.ret == 4
    ran.stderr.fnmatch_lines(["fluxperf: the new environment*ended with exit status*No module named pytest*"])


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
    assert result["comparison"]["packages"]["slowphase"] == ["1.0", "1.1"]
    junit = (pytester.path / "junit.xml").read_text()
    assert 'tests="1"' in junit
    assert 'failures="1"' in junit
    assert "interleaved" in junit
    # against itself the suspect is cleared
    ran = pytester.run(new / "bin" / "python", *common, f"--fluxperf-old-python={new}")
    assert ran.ret == 0, ran.stdout.str()
    ran.stdout.fnmatch_lines(["*to be compared with the old environment*", "*1 passed*"])
