"""Step caches: their decisions, their pictures, and who decides."""

from __future__ import annotations

import numpy as np
import pytest
from reference_caches import ForaReference, TeaCacheReference
from tinyflux import PROMPTS, STEPS

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.models import FLUX_DEV_TEACACHE_COEFFICIENTS
from pytest_fluxperf.pipelines.optimizations.stepcache import in_schedule
from pytest_fluxperf.recipe import parse

ENGINES = ["diffusers", "para-attn", "cache-dit"]


def against(reference, prepared, generate, recipe, prepare, steps):
    """Pixels of the reference on the bare base, and of the recipe; their decisions are compared here."""
    expected = generate(prepared, steps=steps)
    vars(reference.transformer).pop("forward")
    cached = prepare(recipe, steps=steps)
    pixels = generate(cached, steps=steps)
    assert cached.steps.decisions == reference.decisions
    assert cached.problems() == ()
    return expected, pixels


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("steps", [8, 12])
@pytest.mark.parametrize("threshold", ["0.25", "0.4", "0.6", "0.8", "1.2"])
def test_teacache_is_the_published_algorithm(prepare, generate, threshold, steps, dtype):
    plain = prepare(dtype, steps=steps)
    reference = TeaCacheReference(plain.pipe.transformer, steps, float(threshold), FLUX_DEV_TEACACHE_COEFFICIENTS)
    recipe = f"{dtype}+teacache:{threshold}"
    expected, pixels = against(reference, plain, generate, recipe, prepare, steps)
    np.testing.assert_array_equal(pixels, expected)


def test_teacache_decides_in_more_than_one_way(prepare, generate):
    seen = set()
    for threshold in (0.25, 0.4, 0.6, 0.8):
        prepared = prepare(f"fp32+teacache:{threshold}")
        generate(prepared)
        seen.add(prepared.steps.decisions)
    assert len(seen) >= 3
    assert all(decisions[0] == decisions[-1] == "1" for decisions in seen)


def test_teacache_takes_the_coefficients_of_the_model(folder, generate):
    import json

    from pytest_fluxperf.pipelines.models import resolve
    from pytest_fluxperf.pipelines.pool import Pool

    settings = folder / "fluxperf.json"
    settings.write_text(json.dumps({"size": 32, "teacache_coefficients": [0.0, 0.0]}))
    try:
        info = resolve(str(folder))
    finally:
        settings.unlink()
    assert info.defaults.size == 32
    pool = Pool(info, "cpu")
    prepared = pool.acquire(parse("fp32+teacache:0.1"), steps=STEPS)
    generate(prepared)
    assert prepared.steps.decisions == "10000001"  # An estimate of zero never reaches the threshold.
    assert prepared.facts()["teacache_coefficients"] == [0.0, 0.0]
    assert prepared.facts()["teacache_fitted_for_model"] is True
    pool.close()


@pytest.mark.parametrize(("start", "interval"), [(2, 2), (2, 3), (2, 5), (0, 4), (8, 2), (3, 1)])
def test_fora_is_the_plain_rule(prepare, generate, start, interval):
    plain = prepare("fp32")
    reference = ForaReference(plain.pipe.transformer, STEPS, start, interval)
    recipe = f"fp32+fora:start={start},interval={interval}"
    expected, pixels = against(reference, plain, generate, recipe, prepare, STEPS)
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("threshold", "decisions"), [("0.1", "11111111"), ("0.3", "10101111"), ("0.5", "10000010")])
def test_first_block_cache_decides_alike_in_every_engine(prepare, generate, threshold, decisions, dtype):
    pictures = []
    for engine in ENGINES:
        prepared = prepare(f"{dtype}+fbcache:{threshold},engine={engine}")
        pictures.append(generate(prepared))
        if dtype == "bf16" and engine == ENGINES[0]:
            decisions = prepared.steps.decisions  # how bfloat16 rounds is torch's affair, and differs by version
            assert decisions.startswith("1")
        assert prepared.steps.decisions == decisions, engine
        assert prepared.facts()["cache_engine"] == engine
        assert prepared.problems() == ()
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_a_foreign_cache_reaches_no_other_pipeline(pool, generate, untouched, engine):
    cached = pool.acquire(parse(f"fp32+fbcache:0.5,engine={engine}"), steps=STEPS)
    other = pool.acquire(parse("fp32"), steps=STEPS, replica=1)
    tighter = pool.acquire(parse(f"bf16+fbcache:0.3,engine={engine}"), steps=STEPS)
    np.testing.assert_array_equal(generate(other), untouched())
    assert other.steps.decisions == "11111111"
    generate(tighter)
    assert "10000010" != tighter.steps.decisions != "11111111"  # its own threshold, on neither of the others' traces
    generate(cached)
    assert cached.steps.decisions == "10000010"
    for prepared in (cached, other, tighter):
        prepared.release()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_transformer_is_the_same_object_in_the_same_order_afterwards(prepare, generate, engine):
    prepared = prepare("fp32")
    generate(prepared)
    transformer, pipe = prepared.pipe.transformer, prepared.pipe
    order = [name for name, _ in transformer.named_modules()]
    registry = {"_diffusers_hook", "_cache_config"}  # diffusers' own stays, empty
    attributes = set(vars(transformer)) - registry, set(vars(pipe)), type(pipe)
    prepared = prepare(f"fp32+fbcache:0.5,engine={engine}")
    generate(prepared)
    prepared.release()
    assert [name for name, _ in transformer.named_modules()] == order
    assert (set(vars(transformer)) - registry, set(vars(pipe)), type(pipe)) == attributes
    assert not getattr(getattr(transformer, "_diffusers_hook", None), "hooks", None)
    # Native caches find the first block by that order.
    native = prepare("fp32+fbcache:0.5")
    generate(native)
    assert native.steps.decisions == "10000010"


@pytest.mark.parametrize(
    "cache", ["fbcache:0.5", "teacache:0.4", "fora", "fbcache:9,computed=3", "teacache:9,computed=3"]
)
def test_true_guidance_keeps_its_two_calls_apart(prepare, generate, cache):
    """Guidance 1 + tiny ε by two calls with the same prompt is the same picture as without: no state is mixed."""
    single = prepare(f"fp32+{cache}")
    expected = generate(single)
    decisions = single.steps.decisions
    double = prepare(f"fp32+{cache}")
    pixels = generate(double, negative_prompt=PROMPTS[0], true_cfg_scale=1.5)
    assert double.steps.decisions == "".join(2 * decision for decision in decisions)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)


def test_the_adapter_for_para_attn_still_fits():
    from pytest_fluxperf.pipelines.optimizations.paraattn import adapter_fits

    assert adapter_fits() is None


@pytest.mark.parametrize(
    ("options", "decisions"),
    [
        ("front=1,warmup=1", "10000000"),
        ("front=1,warmup=3", "11100000"),
        ("front=1", "11111111"),
        ("front=2,back=1,warmup=1", "10000000"),  # all but one of the four blocks
    ],
)
def test_dbcache_takes_its_options(prepare, generate, options, decisions):
    prepared = prepare(f"fp32+dbcache:9,{options}")
    generate(prepared)
    assert prepared.steps.decisions == decisions


@pytest.mark.parametrize("engine", ["diffusers", "para-attn", "cache-dit"])
def test_a_schedule_counts_steps_where_guidance_calls_twice(prepare, generate, engine):
    prepared = prepare(f"fp32+fbcache:9,engine={engine},computed=2")
    pixels = generate(prepared, negative_prompt=PROMPTS[0], true_cfg_scale=1.5)
    assert np.isfinite(pixels).all()
    assert prepared.steps.decisions == "11000000" * 2
    np.testing.assert_array_equal(generate(prepared, negative_prompt=PROMPTS[0], true_cfg_scale=1.5), pixels)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "dbcache: front=8 and back=0"),
        ("front=3,back=2", "dbcache:front=3,back=2: front=3 and back=2"),
        ("front=3,back=1", "dbcache:front=3,back=1: front=3 and back=1"),
    ],
)
def test_dbcache_needs_a_block_that_it_can_reuse(pool, prepare, generate, untouched, options, said):
    with pytest.raises(FluxPerfError) as error:
        prepare(f"fp32+dbcache:{options}" if options else "fp32+dbcache")
    assert str(error.value) == f"{said} leave none of the 4 blocks to be reused"
    assert not pool._bases["fp32", 0].layers
    np.testing.assert_array_equal(generate(prepare("fp32")), untouched())


def test_dbcache_decides_after_as_many_blocks_as_asked(prepare, generate):
    calls = []
    prepared = prepare("fp32+dbcache:9,front=2,back=0,warmup=1")
    handles = [
        block.register_forward_hook(lambda *_, name=index: calls.append(name))
        for index, block in enumerate(prepared.pipe.transformer.transformer_blocks)
    ]
    generate(prepared)
    for handle in handles:
        handle.remove()
    assert calls == 8 * [0, 1]


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 28, 50])
def test_a_schedule_computes_exactly_as_many_steps_as_it_says(steps):
    for computed in range(1, steps + 1):
        schedule = [in_schedule(index, computed, steps) for index in range(steps)]
        assert sum(schedule) == computed
        assert schedule[0]
        gaps = np.diff([index for index, compute in enumerate(schedule) if compute] + [steps])
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    "cache",
    [f"fbcache:9,engine={engine}" for engine in ENGINES] + ["teacache:9", "dbcache:9,front=1"],
)
@pytest.mark.parametrize(("computed", "decisions"), [(8, "11111111"), (3, "10010010"), (1, "10000000")])
def test_the_measuring_mode_follows_its_schedule(prepare, generate, cache, computed, decisions):
    prepared = prepare(f"fp32+{cache},computed={computed}")
    generate(prepared)
    generate(prepared)
    assert prepared.steps.decisions == decisions
    assert prepared.facts()["cache_schedule"] == f"fixed: {computed} of 8 steps computed"
    assert prepared.problems() == ()


def test_more_computed_steps_than_steps_are_refused(prepare):
    with pytest.raises(FluxPerfError, match="computed=9, but the run has only 8 steps"):
        prepare("fp32+teacache:0.3,computed=9")
