"""Runs that look green and are not: what was refused, what raised past ``except Exception``, what nobody measures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import msgspec
import pytest

from pytest_fluxperf.baseline.codec import decode, encode
from pytest_fluxperf.cli import main

SMALL = """
import os

import numpy
import pytest


def picture(i):
    return numpy.random.default_rng(i).random((32, 32, 3))


@pytest.mark.fluxperf({marker})
def test_one(flux_inputs, work):
    work(0.1)
    {body}
    return picture(flux_inputs["generator"].initial_seed())


@pytest.mark.fluxperf
def test_other(flux_inputs, work):
    work(0.1)
    return picture(flux_inputs["generator"].initial_seed())
"""


@pytest.fixture
def small(project):
    """``small(marker, body)`` writes two tests without a pipeline."""

    def write(marker="", body="pass"):
        project.pytester.makepyfile(test_suite=SMALL.format(marker=marker, body=body))

    write()
    project.small = write
    return project


def report(project, kind, capsys):
    capsys.readouterr()
    main(["report", str(project.runs[-1] / "results.json"), "--format", kind])
    return capsys.readouterr().out


def test_a_test_that_cannot_be_set_up_first_leaves_torchs_settings_to_the_others(small):
    suite = small.pytester.path / "test_suite.py"
    fixture = "@pytest.fixture\ndef late():\n    raise OSError('no disk')\n\n\n@pytest.mark.fluxperf()"
    suite.write_text(suite.read_text().replace("@pytest.mark.fluxperf()", fixture).replace("work):", "work, late):", 1))
    small.pytester.runpytest_subprocess(*small._arguments, "--fluxperf-update")
    (path,) = small.baselines.rglob("test_other*.json")
    (environment,) = json.loads(path.read_text())["environments"].values()
    assert any(name.startswith("torch.") for name in environment["flags"])
    assert {result["judgement"]["verdict"] for result in small.results()["results"]} == {"broken", "no baseline"}


def test_workers_that_differ_or_measure_nothing_lose_no_baseline(small, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    suite = small.pytester.path / "test_suite.py"
    text = suite.read_text()
    suite.write_text(text.replace("    work(0.1)", "    __import__('torch').set_num_threads(3)\n    work(0.1)", 1))
    small.pytester.makepyfile(test_second=text, test_plain="def test_nothing():\n    pass\n")
    options = ("-n3", "--dist=loadfile", "--fluxperf-update")
    result = small.pytester.runpytest_subprocess(*small._arguments, *options)
    result.assert_outcomes(passed=5)
    assert result.ret == 0
    stored = [decode(path.read_bytes(), str(path)) for path in small.baselines.rglob("test_one*.json")]
    threads = {
        baseline.test: environment.flags["torch.num_threads"]
        for baseline in stored
        for environment in baseline.environments.values()
    }
    assert threads == {"test_suite.py::test_one": "3", "test_second.py::test_one": "1"}
    assert main(["append", str(small.runs[-1]), "--baselines", str(small.baselines.parent)]) == 0


DASHBOARD_DOWN = """
def pytest_fluxperf_result(item, result):
    if "one" in item.name:
        raise ValueError("dash down")


@pytest.fixture
def down():
    raise OSError
"""


class TestRefusedUpdates:
    @pytest.mark.parametrize("update", ["--fluxperf-append", "--fluxperf-update=new"])
    def test_of_another_machine(self, small, update):
        small.run("--fluxperf-update").assert_outcomes(passed=2)
        for path in small.baselines.rglob("*.json"):
            stored = decode(path.read_bytes(), str(path))
            hardware = msgspec.structs.replace(stored.hardware, kind="cuda", name="NVIDIA H100 80GB HBM3")
            path.write_bytes(encode(msgspec.structs.replace(stored, hardware=hardware)))
        result = small.run(update)
        result.assert_outcomes(failed=2)
        assert "this run is recorded as one" not in result.stdout.str()

    def test_of_another_workload(self, small):
        small.run("--fluxperf-update").assert_outcomes(passed=2)
        result = small.run("--fluxperf-append", "--fluxperf-guidance=2")
        result.assert_outcomes(failed=2)
        result.stdout.fnmatch_lines(["*guidance 3.5*2*", "*refused, a run of another workload*"])
        small.run("--fluxperf-update=new", "--fluxperf-guidance=2").assert_outcomes(passed=2)

    def test_of_another_environment_though_all_passed(self, small):
        small.run("--fluxperf-update").assert_outcomes(passed=2)
        for path in small.baselines.rglob("*.json"):
            stored = decode(path.read_bytes(), str(path))
            (environment,) = stored.environments.values()
            other = msgspec.structs.replace(environment, flags={**environment.flags, "LD_PRELOAD": "libother.so"})
            runs = tuple(msgspec.structs.replace(run, environment=other.digest) for run in stored.runs)
            path.write_bytes(encode(msgspec.structs.replace(stored, environments={other.digest: other}, runs=runs)))
        result = small.run("--fluxperf-append")
        result.assert_outcomes(passed=2)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["*, 2 refused."])


@pytest.mark.parametrize(
    ("body", "said"), [('pytest.fail("out of luck")', "out of luck"), ("raise SystemExit(3)", "SystemExit: 3")]
)
def test_failures_that_are_no_exceptions_are_broken(small, body, said, capsys):
    small.run("--fluxperf-update").assert_outcomes(passed=2)
    small.small(body=body)
    small.run().assert_outcomes(passed=1, failed=1)
    judgement = small.judgement("test_one")
    assert judgement["verdict"] == "broken"
    assert said in judgement["message"]
    assert "::error file=test_suite.py" in report(small, "annotations", capsys)
    assert ET.fromstring(report(small, "junit", capsys)).find("testsuite").get("failures") == "1"


def test_an_expected_failure_stays_one(small):
    small.run("--fluxperf-update").assert_outcomes(passed=2)
    small.small(body='pytest.xfail("known")')
    small.run().assert_outcomes(passed=1, xfailed=1)


def test_what_was_not_measured_is_an_error_in_every_format(small, capsys):
    small.small(body='pytest.exit("enough")')
    small.run("--fluxperf-update")
    assert "::error title=fluxperf::not measured: 2 tests" in report(small, "annotations", capsys)
    suite = ET.fromstring(report(small, "junit", capsys)).find("testsuite")
    assert suite.get("errors") == "1"
    assert suite.find("testcase/error").get("message") == "not measured: 2 tests"


def test_what_an_update_accepted_is_no_error(small, capsys):
    small.run("--fluxperf-update").assert_outcomes(passed=2)
    assert "::error" not in report(small, "annotations", capsys)
    assert ET.fromstring(report(small, "junit", capsys)).find("testsuite").get("failures") == "0"


def test_strict_fails_what_update_failed_does_not_move(small):
    small.run("--fluxperf-update").assert_outcomes(passed=2)
    small.run("--fluxperf-update=failed").assert_outcomes(passed=2)
    small.run("--fluxperf-update=failed", "--fluxperf-strict").assert_outcomes(failed=2)
    assert [small.judgement(test)["verdict"] for test in ("test_one", "test_other")] == ["inconclusive"] * 2


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_lost_pictures_are_recorded_anew_by_the_remedy_that_is_told(small, damage):
    small.run("--fluxperf-update").assert_outcomes(passed=2)
    pictures = list((small.baselines / "images").glob("*.png"))
    assert pictures
    for path in pictures:
        path.unlink() if damage == "missing" else path.write_bytes(b"garbage")
    result = small.run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*--fluxperf-update=all*"])
    small.run("--fluxperf-update=all").assert_outcomes(passed=2)
    small.run().assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "arguments", "said"),
    [
        ("max_lpips=0.1", [], "max_lpips needs the metric lpips"),
        ("min_ssim=2", [], "must be a number of at least -1 and at most 1, not 2"),
        ("min_ssim=0.9", ["--fluxperf-metrics=psnr"], "min_ssim needs the metric ssim"),
        ('min_ssim=0.9, reference="none"', [], "min_ssim needs pictures to compare with"),
        ("seeds=[2**64]", [], "must be at most 18446744073709551615"),
        ("", ["--fluxperf-guidance=inf"], "must be a number"),
    ],
)
def test_what_nobody_can_measure_is_refused_at_once(small, marker, arguments, said):
    small.small(marker=marker)
    result = small.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("['a cat']", "pytest_fluxperf_prompt_sets: must return a mapping"),
        ("{'x': 'cat'}", "'x' must be a non-empty list of strings, not 'cat'"),
        ("{'x': [1, 2]}", "'x' must be a non-empty list of strings"),
        ("1 / 0", "pytest_fluxperf_prompt_sets: ZeroDivisionError"),
    ],
)
def test_a_hook_that_answers_something_else_is_one_line(small, answer, said):
    conftest = small.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + f"\n\ndef pytest_fluxperf_prompt_sets(config):\n    return {answer}\n")
    result = small.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_a_result_hook_that_raises_does_not_end_the_session(small):
    conftest = small.pytester.path / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}\n{DASHBOARD_DOWN}")
    small.pytester.makepyfile(test_suite=SMALL.format(marker="", body="pass").replace("test_one(", "test_one(down, "))
    result = small.run("--fluxperf-update")
    result.assert_outcomes(passed=1, errors=1, warnings=1)
    assert "INTERNALERROR" not in result.stdout.str()


def test_an_update_that_measured_nothing_fails(small):
    small.small(body="pass")
    suite = small.pytester.path / "test_suite.py"
    suite.write_text(suite.read_text().replace("@pytest.mark.fluxperf", "@pytest.mark.skip\n@pytest.mark.fluxperf"))
    for option in ("--fluxperf-update", "--fluxperf-append"):
        result = small.run(option)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["*this run gated nothing, so it fails*"])


def test_reports_count_what_strict_fails(small, capsys):
    """One stored session, and a tolerance that it cannot decide."""
    small.small(marker="max_slowdown=0.02")
    small.run("--fluxperf-update")
    result = small.run("--fluxperf-strict")
    verdicts = [r["judgement"]["verdict"] for r in small.results()["results"]]
    inconclusive = verdicts.count("inconclusive")
    assert inconclusive
    result.assert_outcomes(failed=inconclusive, passed=2 - inconclusive)
    assert small.results()["strict"]
    suite = ET.fromstring(report(small, "junit", capsys)).find("testsuite")
    assert int(suite.get("failures")) == inconclusive
    assert report(small, "annotations", capsys).count("::error") == inconclusive
    assert f"{inconclusive} of 2 inconclusive: " in result.stdout.str()


NOISE = (
    "pixels = picture(flux_inputs['generator'].initial_seed()); "
    "return numpy.clip(pixels + numpy.random.default_rng(9).normal(0, {0}, pixels.shape), 0, 1)"
)


@pytest.mark.parametrize("option", ["--fluxperf-update", "--fluxperf-update=failed", "--fluxperf-append"])
def test_no_update_takes_a_picture_beyond_the_tests_own_floor(small, option):
    small.small(marker="min_ssim=0.9")
    small.run("--fluxperf-update")
    before = {path: path.read_bytes() for path in small.baselines.rglob("test_one*.json")}
    small.small(marker="min_ssim=0.9", body=NOISE.format(0.3))
    result = small.run(option)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_one: refused, *SSIM of 8 of 8 prompts beyond the floor 0.9*"])
    assert {path: path.read_bytes() for path in before} == before


def test_pictures_are_compared_with_the_first_runs_whatever_was_appended(small):
    small.run("--fluxperf-update")
    small.small(body=NOISE.format(0.05))
    assert small.run("--fluxperf-append").ret == 0
    small.run()  # the same pictures as were appended
    (result,) = [r for r in small.results()["results"] if "one" in r["test"]]
    assert {score["ssim"] < 0.999 for score in result["quality"]["scores"]} == {True}


BRIGHTNESS = """
from pytest_fluxperf.quality.custom_metrics import PictureMetric


def pytest_fluxperf_metrics():
    def error(picture, reference):
        return abs(float(picture.mean() - reference.mean()))

    return {"brightness": PictureMetric(error, tolerance=0.01, higher_is_better=False)}
"""


def test_a_projects_own_metric_guards_pictures_without_a_reference_recipe(small):
    small.pytester.makeconftest(small.conftest + BRIGHTNESS)
    small.run("--fluxperf-update")
    assert small.run().ret == 0
    small.small(body="return picture(flux_inputs['generator'].initial_seed()) * 0.9")
    assert small.run().ret == 1
    assert small.judgement("one")["message"].startswith("brightness 0 → 0.0")
    assert small.judgement("other")["verdict"] != "regressed"


@pytest.mark.parametrize(("marker", "status"), [("min_ssim=0.9", 1), ("", 0)])
def test_sessions_are_compared_by_the_tests_own_floors(small, capsys, marker, status):
    small.small(marker=marker)
    small.run("--fluxperf-update")
    good = small.runs[-1]
    small.small(marker=marker, body=NOISE.format(0.3))
    assert small.run().ret == status
    capsys.readouterr()
    assert main(["compare", str(good), str(small.runs[-1])]) == status
    assert ("SSIM of 8 of 8 prompts beyond the floor 0.9" in capsys.readouterr().out) == bool(status)


@pytest.mark.parametrize(
    ("where", "mark", "status"),
    [
        ("pytest.skip('no time')", "", 1),
        ("pytest.importorskip('nothing_of_this_name')", "", 1),
        ("pytest.skip('no time')", "@pytest.mark.skipif(False, reason='')\n", 0),
        ("pytest.skip('no time')", "@pytest.mark.xfail\n", 0),
    ],
)
def test_what_skips_itself_and_has_a_baseline_is_broken(small, where, mark, status):
    small.run("--fluxperf-update")
    small.small(body=where)
    suite = small.pytester.path / "test_suite.py"
    suite.write_text(suite.read_text().replace("@pytest.mark.fluxperf()", f"{mark}@pytest.mark.fluxperf()"))
    result = small.run()
    assert result.ret == status
    if status:
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(["fluxperf: broken: was skipped (*), but ran when its baseline was recorded; *"])
        assert small.judgement("one")["verdict"] == "broken"
        for path in small.baselines.rglob("test_one*.json"):
            path.unlink()
        assert small.run().ret == 0  # a new test may skip itself


@pytest.mark.parametrize("reference", ["none", "baseline"])
def test_on_a_cpu_a_recipe_without_a_reference_is_not_undecided_for_ever(project, reference):
    suite = project.pytester.path / "test_suite.py"
    text = suite.read_text().replace("@pytest.mark.fluxperf(", f"@pytest.mark.fluxperf(reference={reference!r}, ")
    suite.write_text(text)
    project.run("--fluxperf-update", latency="relative")
    result = project.run("--fluxperf-strict", latency="relative")
    assert result.ret == 0
    for part in ("fp32-", "fbcache"):
        judgement = project.judgement(part) if part == "fbcache" else project.results()["results"][0]["judgement"]
        assert any("reported and not judged" in warning for warning in judgement["warnings"])


LOCKED = """
import filelock
from pytest_fluxperf.quality.custom_metrics import PictureMetric
from pytest_fluxperf.plugin.collect import session_of


def pytest_fluxperf_metrics(config):
    def free(picture, reference):
        try:
            with filelock.FileLock(session_of(config).lock_path, timeout=0):
                return 1.0
        except filelock.Timeout:
            return 0.0

    return {"free": PictureMetric(free, tolerance=0.5)}
"""


def test_pictures_are_compared_while_the_device_is_held(small):
    """Metrics run on it too: another worker must not be timed beside them."""
    small.pytester.makeconftest(small.conftest + LOCKED)
    small.run("--fluxperf-update")
    small.run()
    values = {value for result in small.results()["results"] for value in result["quality"]["own"]["free"]["values"]}
    assert values == {0.0}
