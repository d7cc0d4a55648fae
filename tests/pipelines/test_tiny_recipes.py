"""Caches on the embedded model, whose weights are trained: they hit, and all engines agree."""

from __future__ import annotations

import numpy as np
import pytest
from reference_caches import TeaCacheReference

from pytest_fluxperf.pipelines.models import FLUX_DEV_TEACACHE_COEFFICIENTS, resolve
from pytest_fluxperf.pipelines.pool import Pool
from pytest_fluxperf.recipe import parse

tiny = pytest.importorskip("pytest_fluxperf.pipelines.tiny")
pytestmark = pytest.mark.skipif(
    not (tiny.MODEL_DIR / "model_index.json").exists(), reason="the embedded model is not in this checkout"
)

STEPS = 14


@pytest.fixture(scope="module")
def embedded():
    pool = Pool(resolve("tiny"), "cpu")
    yield pool
    pool.close()


@pytest.fixture
def picture(embedded):
    """``picture(recipe) -> (pixels, decisions)`` of one generation with the embedded model."""
    import torch

    def run(recipe, watch=None):
        prepared = embedded.acquire(parse(recipe), steps=STEPS)
        defaults = embedded.info.defaults
        reference = watch(prepared.pipe.transformer) if watch else None
        prepared.begin()
        pixels = prepared.pipe(
            "a red circle above a blue square",
            num_inference_steps=STEPS,
            height=defaults.size,
            width=defaults.size,
            guidance_scale=defaults.guidance,
            max_sequence_length=defaults.max_sequence_length,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
        decisions = prepared.steps.decisions
        if reference is not None:
            vars(prepared.pipe.transformer).pop("forward")
            decisions = reference.decisions
        else:
            assert prepared.problems() == ()
        prepared.release()
        return pixels, decisions

    return run


@pytest.mark.parametrize("threshold", ["0.1", "0.3"])
def test_first_block_cache_decides_alike_in_every_engine(picture, threshold):
    native, decisions = picture(f"fp32+fbcache:{threshold}")
    for engine in ("para-attn", "cache-dit"):
        pixels, others = picture(f"fp32+fbcache:{threshold},engine={engine}")
        assert others == decisions
        np.testing.assert_array_equal(pixels, native)


def test_first_block_cache_hits(picture):
    _, decisions = picture("fp32+fbcache:0.3")
    assert 0 < decisions.count("0") < STEPS


@pytest.mark.parametrize("threshold", [0.4, 0.8])
def test_teacache_is_the_published_algorithm(embedded, picture, threshold):
    coefficients = embedded.info.teacache_coefficients or FLUX_DEV_TEACACHE_COEFFICIENTS
    pixels, decisions = picture(f"fp32+teacache:{threshold}")
    expected, reference = picture(
        "fp32", watch=lambda transformer: TeaCacheReference(transformer, STEPS, threshold, coefficients)
    )
    assert decisions == reference
    np.testing.assert_array_equal(pixels, expected)
    assert 0 < decisions.count("0") < STEPS
