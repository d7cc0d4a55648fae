"""Recipes that cannot run as asked, in one session: each is told in one line and leaves nothing behind for the next."""

from __future__ import annotations

import sys

import fakekernels
import pytest

SUITE = """
import pytest


@pytest.mark.fluxperf(steps=4, size=32, prompts=["two green squares"], warmup=1, reference="none")
@pytest.mark.parametrize("flux", RECIPES, indirect=True)
def test_recipe(flux, flux_inputs, request):
    inputs = dict(flux_inputs)
    if "magcache" in request.node.name:
        inputs["num_inference_steps"] = 3  # as if a serving process chose another number than its cache was set up for
    return flux(**inputs).images
"""


@pytest.fixture
def adapters(tmp_path):
    """A missing adapter, one of other shapes, one for another kind of model, and no safetensors file at all."""
    import torch
    from safetensors.torch import save_file

    def save(name, layer, size):
        key = f"transformer.{layer}"
        save_file({f"{key}.lora_A.weight": torch.ones(4, size), f"{key}.lora_B.weight": torch.ones(size, 4)}, name)
        return name

    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"no safetensors")
    return {
        tmp_path / "missing.safetensors": "there is no file",
        save(tmp_path / "shape.safetensors", "transformer_blocks.0.attn.to_q", 16): "does not match this pipeline",
        save(tmp_path / "other.safetensors", "down_blocks.0.attn.to_q", 32): "does not match this pipeline",
        garbage: "does not match this pipeline",
    }


def pictures(project, recipe="fp32"):
    return [
        generation["picture"]["sha256"]
        for result in project.results()["results"]
        if result["recipe"] == recipe
        for generation in result["measurement"]["generations"]
    ]


def test_each_is_one_line_and_the_next_test_runs(project, adapters):
    project.pytester.makepyfile(test_suite=f"RECIPES = ['fp32']\n{SUITE}")
    project.run("--fluxperf-update").assert_outcomes(passed=1)
    untouched = pictures(project)
    complaints = {f"fp32+lora:{path}": reason for path, reason in adapters.items()}
    complaints["fp32+magcache"] = "was set up for 4 denoising steps, but the generation ran 3"
    recipes = [*complaints, "bf16+fp8", "fp32"]
    project.pytester.makepyfile(test_suite=f"RECIPES = {recipes!r}\n{SUITE}")
    result = project.run("--fluxperf-update", "-rfEs", "-o", "console_output_style=classic")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 1
    assert outcomes["skipped"] == 1
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == len(complaints)
    told = [line for line in result.stdout.lines if line.startswith(("FAILED", "ERROR "))]
    assert len(told) == len(complaints)
    text = result.stdout.str()
    before_the_table = text.split("= fluxperf =")[0]
    for recipe, reason in complaints.items():
        (line,) = [line for line in before_the_table.splitlines() if reason in line and recipe[5:] in line]
        assert not line.startswith("E ")  # no traceback
    for noise in ("Traceback", "pytest_fluxperf/", "The above exception", "During handling", "Captured"):
        assert noise not in text
    result.stdout.fnmatch_lines(["SKIPPED*bf16+fp8: fp8 needs a CUDA GPU of compute capability 8.9*"])
    assert pictures(project) == untouched
    broken = {r["recipe"]: r["judgement"] for r in project.results()["results"] if r["recipe"] != "fp32"}
    assert set(broken) == set(complaints)
    for recipe, judgement in broken.items():
        assert judgement["verdict"] == "broken"
        assert complaints[recipe] in judgement["message"]
    result.stdout.fnmatch_lines([f"*{len(complaints)} of {len(complaints) + 1} broken:*"])


def test_an_attention_package_that_cannot_compute_is_left_out_or_lost(project, monkeypatch):
    """Without a baseline nobody had it; with one, an upgrade broke it."""
    said = (
        "attention back end xformers cannot compute here: NotImplementedError: No operator found for "
        "`memory_efficient_attention_forward` with inputs"
    )
    broken = fakekernels.cannot(NotImplementedError(fakekernels.NO_OPERATOR))
    # The plain recipe comes after it, too, on the same base.
    project.pytester.makepyfile(test_suite=f"RECIPES = ['bf16+xformers', 'bf16']\n{SUITE}")

    fakekernels.install(monkeypatch, "xformers", broken)
    result = project.run("--fluxperf-update", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED*: {said}"])
    (skipped,) = project.results()["skipped"]
    assert skipped["reason"] == said
    untouched = pictures(project, "bf16")
    strict = project.run("--fluxperf-strict", "--fluxperf-update")
    strict.assert_outcomes(passed=1, errors=1)
    strict.stdout.fnmatch_lines([f"{said} (--fluxperf-strict fails what cannot run)"])

    fakekernels.install(monkeypatch, "xformers", fakekernels.attend)
    project.run("--fluxperf-update").assert_outcomes(passed=2)
    fakekernels.install(monkeypatch, "xformers", broken)
    result = project.run()
    result.assert_outcomes(passed=1, errors=1)
    assert result.ret == 1
    judgement = project.judgement("xformers")
    assert judgement["verdict"] == "broken"
    assert judgement["message"].startswith(f"could not be set up: {said}, but ran when its baseline was recorded")
    assert "Traceback" not in result.stdout.str()
    assert pictures(project, "bf16") == untouched


def test_a_fixture_that_fails_is_told_in_every_report(project):
    project.pytester.makepyfile(
        test_suite="""
        import pytest

        @pytest.fixture
        def server():
            raise ConnectionError("nobody answers on port 8000")

        @pytest.mark.fluxperf(prompts=["a red circle"], warmup=0)
        def test_our_server(flux_inputs, server):
            raise AssertionError("is never called")
        """
    )
    result = project.run("--fluxperf-update")
    assert result.ret == 1
    result.assert_outcomes(errors=1)
    (judgement,) = (r["judgement"] for r in project.results()["results"])
    assert judgement["verdict"] == "broken"
    assert "could not be set up: ConnectionError: nobody answers on port 8000" in judgement["message"]
    assert "1 of 1 broken" in (project.runs[-1] / "summary.md").read_text()
    assert not list(project.baselines.rglob("*.json"))


def test_a_cache_that_is_run_for_twice_its_steps_is_told_from_true_guidance(project):
    """Both call the transformer eight times where the cache was set up for four steps."""
    project.pytester.makepyfile(
        test_suite="""
        import pytest

        TWICE = {"num_inference_steps": 8}
        GUIDED = {"negative_prompt": "a blue circle", "true_cfg_scale": 2.0}

        @pytest.mark.fluxperf(steps=4, size=32, prompts=["a red circle"], warmup=1, reference="none")
        @pytest.mark.parametrize("more", [TWICE, GUIDED], ids=["twice", "guided"])
        @pytest.mark.parametrize("flux", ["fp32+magcache"], indirect=True)
        def test_recipe(flux, flux_inputs, more):
            return flux(**{**flux_inputs, **more}).images
        """
    )
    project.run("--fluxperf-update").assert_outcomes(passed=1, failed=1)
    verdict = project.judgement("twice")
    assert verdict["verdict"] == "broken"
    assert "was set up for 4 denoising steps, but the generation ran 8" in verdict["message"]


def test_strict_fails_what_cannot_run(project):
    project.pytester.makepyfile(test_suite=f"RECIPES = ['bf16+fp8']\n{SUITE}")
    result = project.run("--fluxperf-update", "--fluxperf-strict")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fp8 needs a CUDA GPU*--fluxperf-strict fails what cannot run*"])


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        ("bf16+fp16", "a recipe has one dtype token"),
        ("fp32+fbcache:0.3+fora", "a recipe has one cache token"),
        ("fp32+fp8", "quantizes bf16 weights only"),
        ("", "an empty token"),
    ],
)
def test_what_cannot_exist_is_refused_before_anything_runs(project, recipe, complaint):
    project.pytester.makepyfile(test_suite=f"RECIPES = ['fp32', {recipe!r}]\n{SUITE}")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line.startswith("ERROR:")]
    assert f"test_recipe[{recipe}]" in line
    assert complaint in line


@pytest.mark.parametrize(
    ("setup", "complaint"),
    [
        ("sys.modules['diffusers'] = None", "No module named 'diffusers"),
        ("sys.modules['torch'] = None", "import of torch halted"),
        ("sys.path.insert(0, 'bad')", "RuntimeError: operator torchvision::nms does not exist"),
    ],
    ids=["no diffusers", "no torch", "a torchvision of another torch"],
)
def test_libraries_that_cannot_be_imported_are_one_line(pytester, setup, complaint):
    """What an upgrade most often breaks."""
    bad = pytester.mkdir("bad") / "torchvision"
    bad.mkdir()
    (bad / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (pytester.path / "bad" / "torchvision-0.1.dist-info").mkdir()
    (pytester.path / "bad" / "torchvision-0.1.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.1\n")
    pytester.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.fluxperf(steps=2, recipe="fp32")
        def test_it(flux, flux_inputs):
            return flux(**flux_inputs).images
        """
    )
    program = f"import sys; {setup}; import pytest; sys.exit(pytest.main(['--gpu=cpu', '-p', 'no:cacheprovider']))"
    done = pytester.run(sys.executable, "-c", program)
    assert done.ret == 1
    (line,) = [line for line in done.outlines if line.startswith("the libraries of a FLUX pipeline cannot be imported")]
    assert complaint in line
    assert "see `fluxperf doctor`, or install them with pip install 'pytest-fluxperf[flux]'" in line
    assert "Error" not in "".join(done.outlines[: done.outlines.index(line)])  # no traceback before it
