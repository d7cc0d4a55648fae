"""What one test leaves changed in the pipeline reaches neither later tests nor their reference, and is told."""

from __future__ import annotations

import pytest

SPOIL = """

@pytest.fixture
def spoiled(flux):
    if FAULT == "scheduler":
        flux.scheduler = type(flux.scheduler).from_config(flux.scheduler.config, use_dynamic_shifting=False, shift=9.0)
    if FAULT == "adapter":
        from peft import LoraConfig

        flux.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    if FAULT == "weights":
        flux.transformer.proj_out.weight.data.mul_(0.9)
    return flux


@pytest.mark.fluxperf(steps=STEPS, size=32, prompts=PROMPTS, seeds=[5], reference="baseline")
@pytest.mark.parametrize("flux", ["fp32"], indirect=True)
def test_before(spoiled, flux_inputs):
    return spoiled(**flux_inputs).images


"""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("scheduler", "left its pipeline changed: pipe.scheduler; put back as it was"),
        ("adapter", " more; put back as it was"),
        ("weights", "left its pipeline changed: transformer.proj_out.weight; it is loaded anew"),
    ],
)
def test_a_change_left_behind_stays_with_its_test(recorded, fault, told):
    suite = recorded.pytester.path / "test_suite.py"
    head, mark, rest = suite.read_text().partition("@pytest.mark.fluxperf")
    suite.write_text(f"{head}FAULT = {fault!r}{SPOIL}{mark}{rest}")
    run = recorded.run()
    run.assert_outcomes(passed=2, failed=1)  # it has no baseline
    results = recorded.results()
    assert recorded.judgement("test_before")["verdict"] == "no baseline"
    for recipe in ("test_recipe[fp32]", "fbcache"):
        judgement = recorded.judgement(recipe)
        assert judgement["verdict"] == "passed"
        assert not [f for f in judgement["findings"] if f["metric"] == "drift"]
    (warning,) = results["warnings"]
    assert warning.startswith("test_suite.py::test_before[fp32] left its pipeline changed: ")
    assert warning.endswith(told)
    run.stdout.fnmatch_lines(["warning: test_suite.py::test_before*"])  # wrapped at the terminal's width


def test_nothing_is_told_of_tests_that_leave_nothing(recorded):
    recorded.run()
    assert recorded.results().get("warnings", []) == []
