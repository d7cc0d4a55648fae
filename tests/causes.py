"""Causes of a slow-down planted in real generations, and what the first line of the attribution calls each.

The suite asks for a fixture ``fault`` and a conftest with a ``WorkClock``, whose time is work instead of seconds.
"""

from __future__ import annotations

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
