"""What a transformer answers to fixed inputs: the same under every cache, off by rounding or by more than that."""

from __future__ import annotations

import numpy as np
import pytest
import tinyflux
import torch

from pytest_fluxperf.pipelines import probe
from pytest_fluxperf.quality.fidelity import fidelity


@pytest.fixture
def inputs(prepare):
    pipe = prepare("fp32").pipe
    return probe.probe_inputs(
        pipe,
        tinyflux.PROMPTS[0],
        height=tinyflux.SIZE,
        width=tinyflux.SIZE,
        guidance=3.5,
        max_sequence_length=16,
    )


@pytest.fixture
def answers(prepare, inputs):
    def of(recipe, inputs=inputs):
        prepared = prepare(recipe)
        found = probe.answers(prepared.pipe, inputs, prepared.begin)
        prepared.release()
        return found

    return of


def worst(answers, references):
    found = fidelity(answers, references, references, sigmas=probe.SIGMAS, reference="fp32", lossless=True)
    return max(answer.error for answer in found.answers)


def test_answers_repeat_bit_by_bit_and_differ_by_noise_level(answers, inputs):
    first, second = answers("fp32"), answers("fp32")
    assert all(map(np.array_equal, first, second))
    assert not np.array_equal(first[0], first[1])
    assert first[0].shape == (inputs.latents.numel(),)
    assert first[0].dtype == np.float32


@pytest.mark.parametrize(
    "cache",
    [
        "fbcache:0.5",
        "fbcache:0.5,computed=2",
        "fbcache:0.5,engine=para-attn",
        "fbcache:0.5,engine=cache-dit",
        "teacache:0.5",
        "fora",
        "dbcache:front=1",
        "taylorseer",
        "taylorseer:lite",
        "magcache",
        "pab",
        "fastercache",
    ],
)
def test_a_step_cache_has_nothing_to_reuse(answers, cache):
    assert worst(answers(f"fp32+{cache}"), answers("fp32")) == 0


def test_a_generation_after_the_calls_is_as_before_them(prepare, inputs, generate, untouched):
    prepared = prepare("fp32+fbcache:0.5,computed=2")
    before = generate(prepared)
    decisions = prepared.steps.decisions
    probe.answers(prepared.pipe, inputs, prepared.begin)
    assert np.array_equal(generate(prepared), before)
    assert prepared.steps.decisions == decisions
    assert prepared.problems() == ()


def test_lossless_recipes_differ_by_less_than_a_few_roundings_and_others_by_more(answers, inputs):
    expected = answers("fp32")
    rounding = worst(answers("fp32", inputs.perturb(torch.float32)), expected)
    assert 1e-8 < rounding < 1e-5
    assert worst(answers("fp32+fuseqkv"), expected) < 3 * rounding
    assert worst(answers("fp32+int8wo"), expected) > 100 * rounding


def test_a_wrong_attention_scale_shows(prepare, answers, inputs, monkeypatch):
    expected = answers("fp32")
    rounding = worst(answers("fp32", inputs.perturb(torch.float32)), expected)
    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, **more: original(1.05 * query, **more),
    )
    assert worst(answers("fp32"), expected) > 10 * rounding


def test_a_pipeline_of_other_arguments_cannot_be_asked(prepare):
    class Other:
        def __call__(self, prompt, image):
            pass

    assert probe.cannot_probe(prepare("fp32").pipe) is None
    assert probe.cannot_probe(Other()) == "Other takes no guidance_scale"
