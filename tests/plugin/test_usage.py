"""What a newcomer types: bad input, selection, own serving code, xdist, JUnit."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from pytest_fluxperf.errors import FluxPerfError

OWN_CODE = """
import numpy as np
import pytest

@pytest.mark.fluxperf(prompts=["one", "fifteen"], seeds=[0, 1, 2], warmup=0)
def test_our_server(flux_inputs):
    from conftest import WorkClock

    WorkClock.now += 1.0
    rng = np.random.default_rng(len(flux_inputs["prompt"]) + flux_inputs["generator"].initial_seed())
    return rng.random((48, 64, 3))
"""


def usage(result: pytest.RunResult) -> str:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.stderr.lines if line.startswith("ERROR:")]
    assert len(lines) == 1, result.stderr.str()
    return lines[0]


def test_unknown_gpu(project):
    assert "h1000" in usage(project.run("--gpu=h1000"))


def test_a_gpu_that_is_not_there(project):
    assert "h100" in usage(project.run("--gpu=h100"))


@pytest.mark.parametrize(
    ("marker", "recipe", "complaint"),
    [
        ("stepz=3", "fp32", "no argument 'stepz' (did you mean 'steps'?)"),
        ("steps=-1", "fp32", "fluxperf(steps=...) must be an integer of at least 1, not -1"),
        ("size=100", "fp32", "must be divisible by 16"),
        ("prompts=[]", "fp32", "non-empty list"),
        ("prompts='nowhere.txt'", "fp32", "no prompt set or file 'nowhere.txt'"),
        ("max_slowdown=0.001", "fp32", "under 1 % cannot be decided"),
        ("reference='fp33'", "fp32", "unknown token 'fp33'; did you mean 'fp32'?"),
        ("", "fp32+fbcash:0.1", "unknown token 'fbcash'; did you mean 'fbcache'?"),
        ("", "fp32+bf16", "one dtype token"),
    ],
)
def test_a_bad_marker_or_recipe_names_the_test_and_the_remedy(project, marker, recipe, complaint):
    project.pytester.makepyfile(
        test_suite=f"""
        import pytest

        @pytest.mark.fluxperf({marker})
        @pytest.mark.parametrize("flux", ["{recipe}"], indirect=True)
        def test_it(flux, flux_inputs):
            return flux(**flux_inputs).images
        """
    )
    error = usage(project.run())
    assert complaint in error
    assert "test_suite.py::test_it" in error


def test_a_recipe_that_is_not_handed_to_the_fixture_is_told_with_the_remedy(project):
    suite = project.pytester.path / "test_suite.py"
    suite.write_text(suite.read_text().replace(", indirect=True", ""))
    error = usage(project.run())
    assert "test_suite.py::test_recipe[fp32]: flux is parametrized directly" in error
    assert error.endswith("add indirect=True")


def test_a_projects_own_fixture_may_take_the_recipe(project):
    suite = project.pytester.path / "test_suite.py"
    own = """
@pytest.fixture
def flux(flux, request):
    assert request.param == "fp32"
    return flux

"""
    suite.write_text(
        suite.read_text()
        .replace("def add_one", own + "def add_one")
        .replace('["fp32", "fp32+fbcache:0.5"]', '["fp32"]')
    )
    project.run("--fluxperf-update").assert_outcomes(passed=1)


def test_a_method_of_a_unittest_case_is_refused_not_passed_unmeasured(project):
    project.pytester.makepyfile(
        test_suite="""
        import unittest

        import pytest

        class Case(unittest.TestCase):
            @pytest.mark.fluxperf
            def test_it(self):
                pass
        """
    )
    assert "test_suite.py::Case::test_it: unittest calls the methods of a TestCase itself" in usage(project.run())


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--fluxperf-steps=-1", "--fluxperf-steps must be an integer of at least 1, not -1"),
        ("--fluxperf-steps=many", "--fluxperf-steps must be an integer of at least 1, not 'many'"),
        ("--fluxperf-size=100", "--fluxperf-size must be divisible by 16"),
        ("--fluxperf-size=64x65", "65 is not, 64 is"),
        ("--fluxperf-seeds=", "--fluxperf-seeds must be an integer of at least 0"),
        ("--fluxperf-prompts=nowhere.txt", "no prompt set or file 'nowhere.txt'"),
        ("--fluxperf-samples=0", "--fluxperf-samples must be an integer of at least 1, not 0"),
        ("--fluxperf-reference=fp33", "unknown token 'fp33'; did you mean 'fp32'?"),
        ("--fluxperf-metrics=ssmi", "unknown metric 'ssmi' (did you mean 'ssim'?)"),
        ("--fluxperf-metrics=ssim,lpips", "LPIPS was asked for but torchvision is not installed: pip install"),
        ("--fluxperf-max-slowdown=0.001", "under 1 % cannot be decided"),
    ],
)
def test_a_bad_option_is_one_line(project, option, complaint, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert complaint in usage(project.run(option))


def test_a_bad_ini_setting_names_itself(project):
    project.pytester.makeini("[pytest]\nfluxperf_steps = -3")
    assert "ini setting fluxperf_steps must be an integer of at least 1, not -3" in usage(project.run())


def test_a_hub_model_that_is_not_here_is_an_error_before_anything_runs(project, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    error = usage(project.run("--fluxperf-model=flux-dev"))
    assert "black-forest-labs/FLUX.1-dev is not in the local cache and HF_HUB_OFFLINE is set" in error
    assert "hf download black-forest-labs/FLUX.1-dev" in error
    project.run("--fluxperf-model=flux-dev", "--collect-only").assert_outcomes()


def test_a_gated_hub_model_without_access_is_an_error_before_anything_runs(project, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants, errors

    def refuse(*_):
        answer = SimpleNamespace(headers={}, status_code=403, request=None, text="")
        raise errors.GatedRepoError("403 Client Error", response=answer)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", refuse)
    error = usage(project.run("--fluxperf-model=flux-dev"))
    assert "is gated: accept its licence at https://huggingface.co/black-forest-labs/FLUX.1-dev" in error
    assert "hf auth login" in error


def test_a_body_of_ones_own_needs_no_model(project, monkeypatch, tmp_path):
    """Neither one that asks for no pipeline of ours, nor one whose project has a fixture of that name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    own = (
        OWN_CODE
        + """
@pytest.fixture
def flux():
    from conftest import WorkClock

    def generate():
        WorkClock.now += 1.0
        return np.random.default_rng(0).random((48, 64, 3))

    return generate

@pytest.mark.fluxperf(prompts=["one"], warmup=0)
def test_own_pipeline(flux, flux_inputs):
    return flux()
"""
    )
    project.pytester.makepyfile(test_suite=own)
    project.run("--fluxperf-model=flux-dev", "--fluxperf-update").assert_outcomes(passed=2)


def test_a_damaged_model_is_an_error_before_anything_runs(project, model, tmp_path):
    shutil.copytree(model, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    error = usage(project.run(f"--fluxperf-model={tmp_path / 'damaged'}"))
    assert f"{weights}: truncated" in error


def test_a_folder_that_is_no_flux_pipeline(project, tmp_path):
    error = usage(project.run(f"--fluxperf-model={tmp_path}"))
    assert "not a diffusers pipeline" in error
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    error = usage(project.run(f"--fluxperf-model={tmp_path}"))
    assert "is a StableDiffusionPipeline, not a FluxPipeline" in error


def test_a_model_that_does_not_exist(project):
    assert "no such folder and no known name" in usage(project.run("--fluxperf-model=flux-dvo"))


def test_zero_prompts_in_a_file(project):
    (project.pytester.path / "none.txt").write_text("# nothing\n")
    project.pytester.makepyfile(test_suite=OWN_CODE.replace('prompts=["one", "fifteen"]', 'prompts="none.txt"'))
    assert "none.txt: zero prompts" in usage(project.run())


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere; the next test covers the check")
def test_a_reports_folder_without_permission(project):
    folder = project.pytester.mkdir("locked")
    folder.chmod(0o500)
    assert "cannot be written" in usage(project.run(f"--fluxperf-reports={folder}/here"))


def test_a_reports_folder_that_is_a_file_is_seen_before_measuring(project):
    (project.pytester.path / "taken").write_text("")
    result = project.run(f"--fluxperf-reports={project.pytester.path}/taken")
    assert "reports folder" in usage(result)
    assert "passed" not in result.stdout.str()


def test_a_baselines_folder_that_cannot_be_written_is_seen_before_measuring(project):
    error = usage(project.run("--fluxperf-update", "--fluxperf-baselines=/proc/nowhere"))
    assert "baselines cannot be written" in error
    assert "--fluxperf-baselines" in error


def test_verdicts_are_told_where_the_report_cannot_be_written_at_the_end(recorded, monkeypatch):
    import errno

    from pytest_fluxperf import report

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write_text", full)
    result = recorded.run("-k", "fbcache")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*gated 1 of 1*", "cannot write the report in *: No space left on device"])
    assert "INTERNALERROR" not in result.stdout.str()


def test_a_report_survives_baselines_that_cannot_be_moved_at_the_end(project, monkeypatch):
    from pytest_fluxperf.baseline.store import BaselineStore

    def full(*_, **__):
        raise FluxPerfError("baselines/cpu: baselines cannot be written: No space left on device")

    monkeypatch.setattr(BaselineStore, "update", full)
    result = project.run("--fluxperf-update", "-k", "not fbcache")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["warning: no baseline was moved: *", "report: *report.html"])
    assert len(project.results()["results"]) == 1
    assert "update" not in project.results(), "what has no baseline then fails in every report"
    assert project.results()["warnings"] == [
        "no baseline was moved: baselines/cpu: baselines cannot be written: No space left on device"
    ]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text[: len(text) // 2], ".json"),
        (lambda text: text.replace('"format": 1', '"format": 99'), "99"),
        (lambda text: text.replace('"latency_s": 0', '"latency_s": -0', 1), "latency_s"),
        (lambda text: text.replace('"latency_s": 0.', '"latency_s": 1.', 1), "it was edited; restore the file"),
        (lambda text: "", ".json"),
    ],
    ids=["truncated", "future", "impossible", "edited", "empty"],
)
def test_a_damaged_baseline_is_named(recorded, damage, complaint):
    path = sorted(recorded.baselines.rglob("test_recipe*.json"))[0]
    path.write_text(damage(path.read_text()))
    error = usage(recorded.run())
    assert path.name in error
    assert complaint in error


def test_own_serving_code_is_gated_by_its_stored_pictures(project):
    project.pytester.makepyfile(test_suite=OWN_CODE)
    assert project.run("--fluxperf-update").ret == 0
    assert len(list((project.baselines / "images").glob("*.png"))) == 6
    result = project.run()
    quality = project.results()["results"][0]["quality"]
    assert quality["reference"] == "baseline"
    assert quality["scores"][0]["ssim"] == pytest.approx(1)
    result.stdout.fnmatch_lines(["*gated 1 of 1*"])
    project.pytester.makepyfile(test_suite=OWN_CODE.replace("(48, 64, 3)", "(48, 32, 3)"))
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*broken: *32×48 pixels with a reference of 64×48*"])


def test_last_failed_keyword_and_exit_first(recorded):
    assert recorded.run(fault="black").ret == 1
    again = recorded.run("--lf", fault="black")
    again.assert_outcomes(failed=1)
    recorded.run("-k", "fbcache").assert_outcomes(passed=1, deselected=1)
    backwards = ("test_suite.py::test_recipe[fp32+fbcache:0.5]", "test_suite.py::test_recipe[fp32]")
    stopped = recorded.run(*backwards, "-x", fault="black")
    assert stopped.ret == 1
    stopped.assert_outcomes(failed=1)
    assert [r["recipe"] for r in recorded.results()["results"]] == ["fp32+fbcache:0.5"]  # what was made is reported


def test_collect_only_measures_nothing_and_imports_nothing_heavy(project):
    script = (
        "import sys, pytest\n"
        f"code = pytest.main({['--collect-only', '-q', '--gpu=cpu']!r})\n"
        "loaded = [m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules]\n"
        "sys.exit(f'loaded {loaded}' if loaded else code)\n"
    )
    (project.pytester.path / "conftest.py").unlink()
    suite = project.pytester.path / "test_suite.py"
    suite.write_text(suite.read_text().replace("import numpy as np\n", ""))
    done = subprocess.run([sys.executable, "-c", script], cwd=project.pytester.path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 tests collected" in done.stdout
    assert not (project.pytester.path / "reports").exists()


def test_a_project_without_fluxperf_tests_pays_nothing(pytester):
    pytester.makepyfile("def test_plain(): pass")
    script = (
        "import sys, pytest\n"
        "code = pytest.main(['-q'])\n"
        "heavy = ('torch', 'diffusers', 'numpy', 'jinja2', 'msgspec', 'PIL', 'pynvml')\n"
        "loaded = [m for m in heavy if m in sys.modules]\n"
        "sys.exit(f'loaded {loaded}' if loaded else code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_fluxperf.plugin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_under_xdist_results_meet_and_the_device_is_taken_in_turns(recorded, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (recorded.pytester.path / "fault.txt").write_text("")
    result = recorded.pytester.runpytest_subprocess(*recorded._arguments, "-n2")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["fluxperf: passed, p50 *", "fluxperf: passed, p50 *", "*gated 2 of 2*"])
    document = recorded.results()
    assert {r["worker"] for r in document["results"]} == {"gw0", "gw1"}
    assert "torch" in document["environment"]["packages"]
    assert document["collected"] == document["gated"] == 2
    assert len(list(recorded.runs[-1].glob("references/*.json"))) == 1


BUSY = """
import time
from pathlib import Path

import numpy as np
import pytest

@pytest.mark.fluxperf(prompts=["a red circle"], seeds=[0, 1, 2])
@pytest.mark.parametrize("n", range(4))
def test_busy(n, flux_inputs, work, worker_id):
    began = time.monotonic()
    time.sleep(0.1)  # long enough for the other worker to be met
    work(1.0)
    with Path(__file__).with_name("taken.txt").open("a") as file:
        file.write(f"{worker_id} {began} {time.monotonic()}\\n")
    return np.random.default_rng(flux_inputs["generator"].initial_seed()).random((32, 32, 3))
"""


def test_under_xdist_no_two_workers_are_timed_at_once(project, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    project.pytester.makepyfile(test_suite=BUSY)
    result = project.pytester.runpytest_subprocess(*project._arguments, "-n2", "--fluxperf-update")
    result.assert_outcomes(passed=4)
    lines = (project.pytester.path / "taken.txt").read_text().splitlines()
    taken = sorted((float(began), float(ended), worker) for worker, began, ended in map(str.split, lines))
    assert {worker for *_, worker in taken} == {"gw0", "gw1"}
    assert len(taken) == 4 * (2 + 3)
    overlapping = [(one, other) for one, other in itertools.pairwise(taken) if other[0] < one[1]]
    assert overlapping == []


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        ("stepz", "the fluxperf marker has no argument 'stepz' (did you mean 'steps'?)"),
        ("--gpu=h100", "--gpu h100: "),
        ("--fluxperf-model=flux-dve", "no such folder and no known name (did you mean 'flux-dev'?)"),
        ("--fluxperf-reports=taken", "the reports folder"),
    ],
    ids=["marker", "gpu", "model", "reports"],
)
def test_under_xdist_bad_input_fails_with_one_line(project, monkeypatch, mistake, complaint):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (project.pytester.path / "taken").write_text("")
    suite = project.pytester.path / "test_suite.py"
    if mistake == "stepz":
        suite.write_text(suite.read_text().replace("steps=STEPS", "stepz=STEPS"))
    options = [mistake] if mistake.startswith("--") else []
    result = project.pytester.runpytest_subprocess(*project._arguments, "-n2", *options)
    result.assert_outcomes(errors=2)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stdout.lines if line.startswith("ERROR: ")]
    assert complaint in line
    assert "INTERNALERROR" not in result.stdout.str()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_junit_sees_the_failure_and_the_figures(recorded):
    recorded.run("--junitxml=out.xml", fault="slow decode")
    cases = {case.get("name"): case for case in ElementTree.parse(recorded.pytester.path / "out.xml").iter("testcase")}
    failed = cases["test_recipe[fp32+fbcache:0.5]"]
    assert "regressed" in failed.find("failure").get("message")
    properties = {p.get("name"): p.get("value") for p in failed.iter("property")}
    assert float(properties["fluxperf_p50_s"]) > 0


def test_the_run_leaves_its_three_files(recorded):
    recorded.run()
    names = {path.name for path in recorded.runs[-1].iterdir()}
    assert {"results.json", "report.html", "summary.md", "images"} <= names


def test_an_update_tells_old_and_new_in_its_results_and_summary(recorded):
    recorded.run("--fluxperf-update", fault="slow decode")
    changes = recorded.results()["changes"]
    assert len(changes) == 2
    assert all("test_recipe" in change["test"] for change in changes)
    summary = (recorded.runs[-1] / "summary.md").read_text()
    assert "Baselines, old → new" in summary
    recorded.run()
    assert "changes" not in recorded.results()


def test_hostile_prompts_are_escaped_everywhere(project):
    prompts = [
        '<script>alert(1)</script> & "quotes" \'</style>',
        "bell \x07 nul \x00 escape \x1b[31m",
        "🦊" * 50,
        "x" * 10_000,
    ]
    suite = project.pytester.path / "test_suite.py"
    suite.write_text(
        "import pytest\n"
        f"@pytest.mark.fluxperf(steps=2, size=32, seeds=[0, 1], prompts={prompts!r}, recipe='fp32')\n"
        "def test_it(flux, flux_inputs):\n"
        "    return flux(**flux_inputs).images\n"
    )
    assert project.run("--fluxperf-update").ret == 0
    result = project.run("--junitxml=out.xml", "-rA")
    assert result.ret == 0
    junit = (project.pytester.path / "out.xml").read_text()
    assert len(list(ElementTree.fromstring(junit).iter("testcase"))) == 1
    html, summary = ((project.runs[-1] / name).read_text() for name in ("report.html", "summary.md"))
    for text in (html, summary, junit, result.stdout.str(), (project.runs[-1] / "results.json").read_text()):
        assert not set(text) & {"\x00", "\x07", "\x1b"}
    for text in (html, summary, junit):
        assert "<script>alert(1)" not in text
    document = json.loads((project.runs[-1] / "results.json").read_text())
    assert [p["text"] for p in document["results"][0]["workload"]["prompts"]][:4] == prompts
