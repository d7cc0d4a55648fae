"""Fitting TeaCache's polynomial."""

from __future__ import annotations

import numpy as np
import pytest
import tinyflux

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.optimizations.calibration import fit, fit_coefficients
from pytest_fluxperf.pipelines.optimizations.teacache import polynomial


def test_a_known_polynomial_is_found_again():
    truth = (40.0, -12.0, 3.0, 0.5, 0.01)
    changes = np.linspace(0.01, 0.4, 50)
    found = fit([(x, polynomial(truth, x)) for x in changes])
    np.testing.assert_allclose(found.coefficients, truth, rtol=1e-6)
    assert found.r_squared == pytest.approx(1.0)
    assert len(found.pairs) == 50


def test_the_constant_is_the_mean_where_nothing_is_explained():
    found = fit([(0.1, 1.0), (0.2, -1.0), (0.1, -1.0), (0.2, 1.0)], degree=1)
    assert found.coefficients == pytest.approx((0.0, 0.0), abs=1e-9)
    assert found.r_squared == pytest.approx(0.0, abs=1e-9)


def test_too_few_changes_are_refused():
    with pytest.raises(FluxPerfError, match="3 different changes cannot determine a polynomial of degree 4"):
        fit([(0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.3, 0.5)])


def test_activations_that_are_not_finite_are_refused():
    with pytest.raises(FluxPerfError, match="not finite"):
        fit([(float(i), float("nan")) for i in range(9)])


def test_pairs_are_the_changes_between_consecutive_steps(prepare, generate, untouched):
    """Recomputed from the blocks' inputs and outputs, recorded apart."""
    import torch

    prepared = prepare("fp32")
    transformer = prepared.pipe.transformer
    found = fit_coefficients(
        prepared.pipe,
        tinyflux.PROMPTS,
        steps=6,
        height=32,
        width=32,
        max_sequence_length=16,
        seeds=(0, 1),
        degree=2,
    )
    assert len(found.pairs) == 2 * 2 * (6 - 1)

    entries, tembs, outputs = [], [], []

    def first_block(_block, _args, inputs):
        entries.append(inputs["hidden_states"])
        tembs.append(inputs["temb"])

    handles = [
        transformer.transformer_blocks[0].register_forward_pre_hook(first_block, with_kwargs=True),
        transformer.norm_out.register_forward_pre_hook(lambda module, args: outputs.append(args[0])),
    ]
    prepared.pipe(
        tinyflux.PROMPTS[1],
        num_inference_steps=6,
        height=32,
        width=32,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(1),
    )
    for handle in handles:
        handle.remove()
    norm = transformer.transformer_blocks[0].norm1
    signals = [norm(entry, emb=temb)[0] for entry, temb in zip(entries, tembs, strict=True)]
    residuals = [output - entry for output, entry in zip(outputs, entries, strict=True)]
    expected = [
        [float((now[i] - now[i - 1]).abs().mean() / now[i - 1].abs().mean()) for now in (signals, residuals)]
        for i in range(1, 6)
    ]
    np.testing.assert_allclose(found.pairs[-5:], expected, rtol=1e-5)
    # Nothing stays hooked.
    np.testing.assert_array_equal(generate(prepared), untouched())
