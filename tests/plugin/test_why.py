"""Causes planted in real generations: the first line of the attribution names each of them."""

from __future__ import annotations

import gzip
import json

import pytest

SUITE = """
from contextlib import nullcontext

import pytest
import torch
from conftest import WorkClock
from torch.nn.attention import SDPBackend, sdpa_kernel

PROMPTS = ["a red circle on a blue ground", "two green squares"]
mark = pytest.mark.fluxperf(steps=4, size=32, prompts=PROMPTS, seeds=[0])


def slower(fault):
    WorkClock.now += 0.2 if fault else 0.0


@mark
def test_attention(flux_plain, flux_inputs, fault):
    slower(fault)
    with sdpa_kernel(SDPBackend.MATH) if fault else nullcontext():
        return flux_plain(**flux_inputs).images


@pytest.fixture
def flux_plain(flux):
    return flux


@pytest.fixture
def compiled(flux, fault):
    layers = [block.attn for block in flux.transformer.transformer_blocks]  # inside of what the clock counts
    if not fault:
        for layer in layers:
            layer.forward = torch.compile(layer.forward, backend="eager")
    yield flux
    for layer in layers:
        vars(layer).pop("forward", None)


@mark
def test_compile(compiled, flux_inputs, fault):
    slower(fault)
    return compiled(**flux_inputs).images


@mark
def test_cast(flux, flux_inputs, fault):
    slower(fault)

    def upcast(module, inputs, output):
        return tuple(x.double().float() for x in output) if isinstance(output, tuple) else output.double().float()

    blocks = [*flux.transformer.transformer_blocks, *flux.transformer.single_transformer_blocks]
    handles = [block.attn.register_forward_hook(upcast) for block in blocks] if fault else []
    try:
        return flux(**flux_inputs).images
    finally:
        for handle in handles:
            handle.remove()


@mark
@pytest.mark.parametrize("flux", ["fp32+fbcache:0.9"], indirect=True)
def test_threshold(flux, flux_inputs, fault):
    if fault:
        from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK

        flux.transformer.transformer_blocks[0]._diffusers_hook.get_hook(_FBC_LEADER_BLOCK_HOOK).threshold = 0.0
    return flux(**flux_inputs).images


@mark
@pytest.mark.parametrize("flux", ["fp32+fbcache:0.9"], indirect=True)
def test_hooks(flux, flux_inputs, fault):
    if fault and flux.transformer.is_cache_enabled:
        flux.transformer.disable_cache()
    return flux(**flux_inputs).images
"""

CAUSES = {
    "test_attention": ("regressed", "attention kernels that ran flash → math (asked for: nothing, torch chooses)"),
    "test_compile": ("regressed", "nothing runs compiled any more: compiled regions a step 2 → 0"),
    "test_cast": ("regressed", "casts between dtypes a step "),
    "test_threshold": ("regressed", "the step cache answers nothing: computed steps "),
    "test_hooks": ("broken", "the step cache answers nothing: computed steps "),
}


@pytest.fixture
def planted(project):
    """The project after a healthy run and one with every cause planted, both profiled."""
    project.pytester.makepyfile(test_suite=SUITE)
    healthy = project.run("--fluxperf-update", "--fluxperf-profile")
    healthy.assert_outcomes(passed=len(CAUSES))
    project.run("--fluxperf-profile", fault="planted").assert_outcomes(failed=len(CAUSES))
    return project


def test_planted_causes_are_named(planted):
    for test, (verdict, cause) in CAUSES.items():
        judgement = planted.judgement(test)
        assert (test, judgement["verdict"]) == (test, verdict)
        assert judgement["attribution"][0].startswith(cause), judgement["attribution"]

    (attention,) = [r for r in planted.results()["results"] if "test_attention" in r["test"]]
    assert "attention kernels that ran flash → math" in attention["judgement"]["message"]
    # the profile of both sides: what ran instead, and parts that sum to the difference
    found = attention["judgement"]["kernels"]
    moved = {c["family"]: c["change"] for c in found["changes"]}
    assert moved["aten::_scaled_dot_product_flash_attention_for_cpu"] == "vanished"
    parts = sum(c["now_s"] - c["baseline_s"] for c in found["changes"])
    assert parts + found["others_s"] + found["idle_s"] + found["unexplained_s"] == pytest.approx(found["difference_s"])
    families = {k["family"] for k in attention["measurement"]["kernels"]["kernels"]}
    assert "aten::_scaled_dot_product_attention_math" in families

    # traces lie in the run's folder; baselines keep the table alone
    for trace in attention["measurement"]["kernels"]["traces"]:
        assert json.loads(gzip.decompress((planted.runs[-1] / trace).read_bytes()))["traceEvents"]
    stored = [json.loads(path.read_text())["runs"][0] for path in planted.baselines.rglob("*.json")]
    assert all(run["kernels"]["kernels"] and "traces" not in run["kernels"] for run in stored)

    # a broken picture is not worth a profile
    (hooks,) = [r for r in planted.results()["results"] if "test_hooks" in r["test"]]
    assert "kernels" not in hooks["measurement"]


def test_a_run_without_the_option_profiles_nothing(project):
    project.run("--fluxperf-update", "-k", "fbcache")
    (result,) = project.results()["results"]
    assert "kernels" not in result["measurement"]
    assert not (project.runs[-1] / "traces").exists()
