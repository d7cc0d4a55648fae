"""The named pipelines stand for their recipes, and each is documented."""

from __future__ import annotations

NAMED = {
    "flux_fp32": "fp32",
    "flux_bf16": "bf16",
    "flux_fp16": "fp16",
    "flux_fa2": "fp32+fa2",
    "flux_fbcache": "fp32+fbcache:0.3",
    "flux_teacache": "fp32+teacache:0.4",
    "flux_fora": "fp32+fora",
    "flux_int8": "fp32+int8wo",
    "flux": "fp32",
}


def test_a_named_fixture_gives_its_recipe(project):
    project.pytester.makepyfile(
        test_suite="import pytest\n"
        + "".join(
            f"""
@pytest.mark.fluxperf(steps=2, size=32, prompts=["a red circle"], warmup=0, reference="none")
def test_{name}({name}, flux_inputs):
    return {name}(**flux_inputs).images
"""
            for name in NAMED
        )
    )
    result = project.run("--fluxperf-update")
    result.assert_outcomes(passed=len(NAMED))
    made = {r["test"].rpartition("::test_")[2]: r["recipe"] for r in project.results()["results"]}
    assert made == NAMED


def test_one_that_cannot_run_here_is_skipped_by_its_recipe(project):
    project.pytester.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.fluxperf(steps=2, size=32)
        def test_fp8(flux_fp8, flux_inputs):
            return flux_fp8(**flux_inputs).images
        """
    )
    project.run("-rs").stdout.fnmatch_lines(["SKIPPED*recipe bf16+fp8: fp8 needs a CUDA GPU*"])


def test_two_pipelines_in_one_test_are_refused(project):
    project.pytester.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.fluxperf(steps=2, size=32)
        def test_two(flux_fp32, flux_fora, flux_inputs):
            return flux_fora(**flux_inputs).images
        """
    )
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_two asks for two pipelines; a test measures one*"])


def test_pytest_documents_them(project):
    text = project.run("--fixtures").stdout.str()
    for name in ("flux", "flux_inputs", "flux_fbcache", "flux_fp8", "flux_compile", "gpu"):
        assert f"\n{name}" in text
    assert "FLUX pipeline under the recipe ``fbcache:0.3``" in text


def test_the_pipeline_draws_no_progress_bar(project):
    result = project.run("-s", "--fluxperf-update", "-k", "not fbcache")
    assert "it/s" not in result.stderr.str() + result.stdout.str()
