"""One base, many recipes: each does what it says, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import weakref

import numpy as np
import pytest

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.measure.observe import Observation, first_step
from pytest_fluxperf.pipelines import compile_counters
from pytest_fluxperf.pipelines.pool import Pool, survey
from pytest_fluxperf.recipe import parse

CACHES = [
    "fbcache:0.5",
    "fbcache:0.5,engine=para-attn",
    "fbcache:0.5,engine=cache-dit",
    "dbcache:0.5,front=1,warmup=1,taylor=1",
    "teacache:0.4",
    "fora",
    "magcache:0.5",
    "taylorseer",
    "taylorseer:lite",
    "pab",
    "fastercache",
]
INSIDE_BLOCKS = ["taylorseer", "pab", "fastercache"]
OPTIMIZATIONS = [*CACHES, "int8wo", "int8", "fp8wo", "compile", "math", "flex", "channels_last", "vae_tiling:16"]
UNSEEN = ["fa2", "fuseqkv"]
"""Optimizations that do not change an fp32 picture on a CPU."""


def _pairs():
    """Every two of a cache, a quantization, an attention back end, compile and fused projections."""
    kinds = [CACHES, ["int8wo", "fp8wo"], ["math"], ["compile"], ["fuseqkv"]]
    for first, second in itertools.combinations(kinds, 2):
        for pair in itertools.product(first, second):
            if not ("compile" in pair and set(INSIDE_BLOCKS) & set(pair)):
                yield "+".join(pair)
    switches = ["channels_last", "vae_tiling:16"]
    for pair in itertools.product(["fbcache:0.5", "teacache:0.4", "int8wo", "math", "compile", "fuseqkv"], switches):
        yield "+".join(pair)
    yield from map("+".join, itertools.combinations(switches, 2))


def test_every_optimization_of_a_cpu_is_undone_in_these_tests():
    elsewhere = {"fp32", "bf16", "fp16", "sdpa", "lora", "vae_slicing", "fastest", "fastest_lossless"}
    """Dtypes are bases of their own; sdpa applies nothing; the others have tests of their own."""
    able = {token.name for token, lacking in survey("cpu") if lacking is None}
    assert able - elsewhere <= {recipe.partition(":")[0] for recipe in [*OPTIMIZATIONS, *UNSEEN]}


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_dtype(prepare, generate, dtype, untouched):
    prepared = prepare(dtype)
    pixels = generate(prepared)
    assert np.isfinite(pixels).all()
    np.testing.assert_array_equal(pixels, untouched(dtype))
    np.testing.assert_array_equal(pixels, generate(prepared))
    assert prepared.steps.decisions == "1" * 8
    assert prepared.dtype == dtype
    assert prepared.facts()["dtype"] == {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[dtype]
    assert prepared.problems() == ()


@pytest.fixture
def dynamo_only(monkeypatch):
    """Compile without inductor: graphs, breaks and recompilations are as with it, in a fraction of the time."""
    import torch

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile_(function, fullgraph=True, backend="eager"))


def watched(prepared, generate, **arguments):
    """What a step of the second generation ran."""
    observation = Observation()
    generate(prepared)
    with first_step(prepared.pipe.transformer, observation):
        generate(prepared, **arguments)
    return observation.facts


def _acts_and_is_undone(recipe, prepare, generate, untouched, changes=True):
    prepared = prepare(f"fp32+{recipe}")
    pixels = generate(prepared)
    assert np.isfinite(pixels).all()
    if changes:
        assert not np.array_equal(pixels, untouched()), "the recipe changed nothing"
    np.testing.assert_array_equal(pixels, generate(prepared))
    assert prepared.problems() == ()
    assert prepared.facts().get("graph_breaks", 0) == 0
    json.dumps(prepared.facts())
    prepared.release()
    prepared.release()
    np.testing.assert_array_equal(generate(prepare("fp32")), untouched())


@pytest.mark.parametrize("recipe", OPTIMIZATIONS)
def test_recipe_acts_repeats_and_is_undone_bit_exactly(prepare, generate, untouched, recipe):
    _acts_and_is_undone(recipe, prepare, generate, untouched)


@pytest.mark.parametrize(
    "recipe", [*_pairs(), "compile:whole", "compile:whole+int8wo", "taylorseer:lite+int8wo+compile"]
)
def test_pairs_act_repeat_and_are_undone_bit_exactly(prepare, generate, untouched, dynamo_only, recipe):
    unseen = set(recipe.split("+")) <= {"compile", "compile:whole", *UNSEEN}
    _acts_and_is_undone(recipe, prepare, generate, untouched, changes=not unseen)


@pytest.mark.parametrize("recipe", UNSEEN)
def test_what_cannot_be_seen_is_undone_too(prepare, generate, untouched, recipe):
    prepared = prepare(f"fp32+{recipe}")
    np.testing.assert_array_equal(generate(prepared), untouched())
    assert prepared.problems() == ()
    prepared.release()
    np.testing.assert_array_equal(generate(prepare("fp32")), untouched())


@pytest.mark.parametrize("recipe", [*OPTIMIZATIONS, "fbcache:9,computed=3"])
def test_a_failure_in_mid_generation_leaves_nothing_behind(prepare, generate, untouched, recipe):
    def fail(pipe, step, timestep, tensors):
        if step == 4:
            raise RuntimeError("out of luck")
        return {}

    prepared = prepare(f"fp32+{recipe}")
    whole = generate(prepared)
    decisions = prepared.steps.decisions
    with pytest.raises(RuntimeError, match="out of luck"):
        generate(prepared, callback_on_step_end=fail)
    np.testing.assert_array_equal(generate(prepared), whole)
    assert prepared.steps.decisions == decisions
    with pytest.raises(RuntimeError, match="out of luck"):
        generate(prepared, callback_on_step_end=fail)
    prepared.release()
    np.testing.assert_array_equal(generate(prepare("fp32")), untouched())


def test_an_error_inside_a_block_leaves_nothing_behind(prepare, generate, untouched, monkeypatch):
    prepared = prepare("fp32+fbcache:0.5")
    block = prepared.pipe.transformer.single_transformer_blocks[0]
    with monkeypatch.context() as patch:
        patch.setattr(block.act_mlp, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(prepared)
    prepared.release()
    np.testing.assert_array_equal(generate(prepare("fp32")), untouched())


@pytest.mark.parametrize("ending", ["release", "park"])
def test_components_that_a_body_replaced_come_back(prepare, generate, untouched, ending):
    from diffusers import FlowMatchEulerDiscreteScheduler

    prepared = prepare("fp32+fora")
    scheduler = prepared.pipe.scheduler
    prepared.pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=9.0)
    generate(prepared)
    getattr(prepared, ending)()
    again = prepare("fp32")
    assert again.pipe.scheduler is scheduler
    np.testing.assert_array_equal(generate(again), untouched())


def test_acquiring_undoes_what_was_applied_before(prepare, generate, untouched):
    for recipe in ("fp32+fbcache:0.5", "fp32+int8wo+teacache:0.4", "fp32+fora+int8wo"):
        generate(prepare(recipe))
    np.testing.assert_array_equal(generate(prepare("fp32")), untouched())


def test_shared_layers_stay_between_recipes(pool, prepare, generate):
    first = prepare("fp32+int8wo+compile")
    generate(first)
    quantized = first.pipe.transformer.transformer_blocks[0].attn.to_q.weight
    before = compile_counters.snapshot()
    second = prepare("fp32+int8wo+compile+fora")
    assert second.pipe.transformer.transformer_blocks[0].attn.to_q.weight is quantized
    generate(second)
    assert (compile_counters.snapshot() - before).graphs == 0
    assert second.steps.decisions == "11101010"
    assert second.facts()["quantized_layers"] == 40


def test_a_parked_recipe_leaves_what_was_expensive_to_the_next(pool, prepare, generate, untouched):
    first = prepare("fp32+int8wo+compile+fora")
    generate(first)
    first.park()
    with pytest.raises(FluxPerfError, match="was released"):
        first.begin()
    (base,) = [base for key, base in pool._bases.items() if key == ("fp32", 0)]
    assert [str(layer.key[0]) for layer in base.layers] == ["fp32", "int8wo", "compile"]  # the cache is gone
    before = compile_counters.snapshot()
    second = prepare("fp32+int8wo+compile")
    generate(second)
    assert (compile_counters.snapshot() - before).graphs == 0
    second.park()
    np.testing.assert_array_equal(generate(prepare("fp32")), untouched())


def test_a_dropped_pipeline_is_freed_though_the_libraries_are_kept_from_collection(info):
    """What was alive when the first model was loaded is frozen; models never are."""
    pool = Pool(info, "cpu")
    prepared = pool.acquire(parse("fp32"), steps=2)
    assert gc.get_freeze_count() > 100_000
    transformer = weakref.ref(prepared.pipe.transformer)
    prepared.release()
    del prepared
    pool.close()
    assert transformer() is None


def test_room_is_made_by_undoing_what_is_parked(info, generate):
    pool = Pool(info, "cpu")
    parked = pool.acquire(parse("fp32+int8wo"), steps=8)
    weight = parked.pipe.transformer.transformer_blocks[0].attn.to_q
    parked.park()
    assert type(weight.weight).__name__ == "Int8Tensor"
    pool.make_room()
    assert not pool._bases
    assert type(weight.weight).__name__ == "Parameter"
    pool.close()


def test_a_cache_that_knows_the_number_of_steps_is_applied_anew_for_another(prepare, generate):
    generate(prepare("fp32+teacache:9"))
    prepared = prepare("fp32+teacache:9", steps=3)
    generate(prepared, steps=3)
    assert prepared.steps.decisions == "101"  # The first step and the last.


def test_only_the_latest_pipeline_of_a_base_is_valid(prepare, generate):
    first, second = prepare("fp32+fora"), prepare("fp32")
    for use in (first.begin, first.facts, first.problems):
        with pytest.raises(FluxPerfError, match="prepared for another recipe"):
            use()
    first.release()
    second.begin()


def test_replicas_and_dtypes_are_bases_of_their_own(pool, generate):
    first = pool.acquire(parse("fp32+fora"), steps=8)
    second = pool.acquire(parse("fp32"), steps=8, replica=1)
    third = pool.acquire(parse("bf16"), steps=8)
    assert len({id(prepared.pipe.transformer) for prepared in (first, second, third)}) == 3
    generate(first)
    assert first.steps.decisions == "11101010"
    assert second.steps.decisions == ""
    for prepared in (first, second, third):
        prepared.release()


def test_each_base_is_loaded_once(info, monkeypatch):
    from pytest_fluxperf.pipelines import loading

    loads, load = [], loading.load
    monkeypatch.setattr(loading, "load", lambda *a: loads.append(a) or load(*a))
    pool = Pool(info, "cpu")
    for recipe in ("fp32", "fp32+fora", "fp32+int8wo", "bf16"):
        pool.acquire(parse(recipe), steps=8).release()
    assert len(loads) == 2
    pool.close()


def test_a_recipe_that_fails_to_apply_leaves_nothing_behind(pool, generate, untouched, monkeypatch):
    from pytest_fluxperf.pipelines.optimizations.fora import Fora

    apply = Fora.apply
    monkeypatch.setattr(Fora, "apply", lambda self: apply(self) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pool.acquire(parse("fp32+int8wo+fora"), steps=8)
    assert not pool._bases["fp32", 0].layers
    monkeypatch.undo()
    prepared = pool.acquire(parse("fp32"), steps=8)
    np.testing.assert_array_equal(generate(prepared), untouched())
    prepared.release()


class TestMemory:
    def test_originals_and_other_bases_are_spare(self, info):
        pool = Pool(info, "cpu")
        alone = pool.acquire(parse("fp32"), steps=8)
        assert alone.spare_memory_mib() == 0
        quantized = pool.acquire(parse("fp32+int8wo"), steps=8)
        linears = sum(
            linear.weight.numel() * 4
            for name, linear in quantized.pipe.transformer.named_modules()
            if "blocks." in name and type(linear).__name__ == "Linear"
        )
        assert quantized.spare_memory_mib() == pytest.approx(linears / 2**20)
        other = pool.acquire(parse("bf16"), steps=8)
        whole_base = sum(
            tensor.numel() * 4
            for component in (
                alone.pipe.transformer,
                alone.pipe.vae,
                alone.pipe.text_encoder,
                alone.pipe.text_encoder_2,
            )
            for tensor in (*component.parameters(), *component.buffers())
        )
        quantized.release()
        assert other.spare_memory_mib() == pytest.approx(whole_base / 2**20, rel=0.01)
        pool.close()

    def test_quantized_weights_of_another_base_count_as_their_parts(self, info):
        pool = Pool(info, "cpu")
        other = pool.acquire(parse("bf16"), steps=8)
        plain = pool.acquire(parse("fp32"), steps=8)
        before = other.spare_memory_mib()
        plain.release()
        quantized = pool.acquire(parse("fp32+int8wo"), steps=8)
        assert quantized.facts()["quantized_layers"]
        originals = sum(
            weight.numel() for layer in pool._bases["fp32", 0].layers for weight in layer.applied.originals()
        )
        added = (other.spare_memory_mib() - before) * 2**20
        assert originals < added < 1.5 * originals  # a byte each, and scales: not four
        pool.close()

    def _fails(self, monkeypatch, times):
        """The first loads of a bf16 base run out of memory."""
        import torch

        from pytest_fluxperf.pipelines import loading

        load, left = loading.load, [times]

        def scarce(info, dtype, device):
            if dtype == "bf16" and left[0]:
                left[0] -= 1
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 24.00 GiB. GPU 0 has a total capacity of 39.50 GiB of which "
                    "7.25 GiB is free. Including non-PyTorch memory, this process has ...\nSee documentation"
                )
            return load(info, dtype, device)

        monkeypatch.setattr(loading, "load", scarce)

    def test_idle_bases_make_room(self, info, monkeypatch):
        self._fails(monkeypatch, 1)
        pool = Pool(info, "cpu")
        pool.acquire(parse("fp32"), steps=8).release()
        used = pool.acquire(parse("fp32"), steps=8, replica=1)
        prepared = pool.acquire(parse("bf16"), steps=8)
        assert set(pool._bases) == {("fp32", 1), ("bf16", 0)}
        used.begin()
        prepared.begin()
        pool.close()

    def test_too_little_memory_is_one_line_and_the_next_recipe_runs(self, info, monkeypatch, generate):
        self._fails(monkeypatch, 2)
        pool = Pool(info, "cpu")
        with pytest.raises(FluxPerfError) as error:
            pool.acquire(parse("bf16"), steps=8)
        assert str(error.value) == (
            "recipe bf16: the device's memory does not suffice: it needed 24.00 GiB more and 7.25 GiB of the device's "
            "39.50 GiB was free"
        )
        generate(pool.acquire(parse("fp32"), steps=8))
        pool.close()


class TestProblems:
    @pytest.mark.parametrize("recipe", ["fbcache:0.1", "teacache:0.4", "fora", "magcache", "taylorseer:lite"])
    def test_cache_disabled_behind_our_back(self, prepare, generate, recipe):
        prepared = prepare(f"fp32+{recipe}")
        generate(prepared)
        assert prepared.problems() == ()
        for block in prepared._host.blocks():
            vars(block).pop("forward", None)
        generate(prepared)
        generate(prepared)
        (problem,) = prepared.problems()
        assert problem == f"step cache {recipe} was asked for, but 16 denoising steps never consulted it"

    @pytest.mark.parametrize("recipe", ["fbcache:0.1", "taylorseer", "pab", "fastercache", "magcache"])
    def test_native_cache_disabled_by_its_own_call(self, prepare, generate, recipe):
        prepared = prepare(f"fp32+{recipe}")
        prepared.pipe.transformer.disable_cache()
        generate(prepared)
        assert "8 denoising steps never consulted it" in prepared.problems()[0]

    def test_another_number_of_steps_than_prepared_for(self, prepare, generate):
        prepared = prepare("fp32+magcache")
        generate(prepared, steps=5)
        assert prepared.problems() == (
            "step cache magcache was set up for 8 denoising steps, but the generation ran 5",
        )

    def test_tiling_switched_off(self, prepare):
        prepared = prepare("fp32+vae_tiling")
        assert prepared.problems() == ()
        prepared.pipe.vae.disable_tiling()
        assert prepared.problems() == ("the VAE's tiling was asked for, but is off",)

    def test_decoding_that_there_was_nothing_to_divide_in(self, prepare, generate):
        prepared = prepare("fp32+vae_tiling+vae_slicing")
        generate(prepared)
        assert prepared.problems() == (
            "vae_slicing did nothing: every picture was decoded alone (num_images_per_prompt makes several)",
            "vae_tiling did nothing: no picture was larger than a tile of 32 pixels, write a smaller one as "
            "vae_tiling:16",
        )
        generate(prepared, size=64, num_images_per_prompt=2)
        assert prepared.problems() == ()

    def test_projections_taken_apart(self, prepare):
        prepared = prepare("fp32+fuseqkv")
        assert prepared.facts()["fused_projections"] == 4
        prepared.pipe.transformer.transformer_blocks[0].attn.unfuse_projections()
        assert prepared.problems() == ("3 of 4 attention layers have fused projections",)

    def test_weights_in_another_order(self, prepare):
        import torch

        prepared = prepare("fp32+channels_last")
        assert prepared.problems() == ()
        prepared.pipe.vae.to(memory_format=torch.contiguous_format)
        (problem,) = prepared.problems()
        assert problem.endswith("convolution weights are channels-last")

    def test_weights_put_back(self, prepare):
        import torch

        prepared = prepare("fp32+int8wo")
        linear = prepared.pipe.transformer.transformer_blocks[0].attn.to_q
        linear.weight = torch.nn.Parameter(linear.weight.dequantize(), requires_grad=False)
        assert prepared.facts()["quantized_weight"] == ["Int8Tensor", "Parameter"]
        assert prepared.problems() == ("39 of 40 linear layers of the blocks are quantized",)

    def test_nothing_compiled(self, prepare, generate):
        prepared = prepare("fp32+compile")
        for block in prepared._host.blocks():
            vars(block).pop("forward")
        generate(prepared)
        assert prepared.problems() == ("compile was asked for, but no graph was compiled",)

    def test_other_attention_back_end(self, prepare):
        prepared = prepare("fp32")
        prepared.pipe.transformer.set_attention_backend("_native_math")
        try:
            assert prepared.facts()["attention"] == ["_native_math"]
            assert prepared.problems() == ("no attention back end was asked for, but _native_math is set",)
        finally:
            prepared.pipe.transformer.set_attention_backend("native")
            prepared.pipe.transformer.reset_attention_backend()

    def test_other_dtype(self, prepare):
        import torch

        prepared = prepare("bf16")
        prepared.pipe.transformer.to(torch.float32)
        assert prepared.problems() == ("asked for bfloat16, but the transformer computes in float32",)
        prepared.pipe.transformer.to(torch.bfloat16)


class TestCompile:
    def test_three_graphs_no_breaks_and_none_again(self, prepare, generate):
        prepared = prepare("fp32+compile")
        generate(prepared)
        facts = prepared.facts()
        assert (facts["compiled_graphs"], facts["graph_breaks"]) == (3, 0)
        before = compile_counters.snapshot()
        generate(prepared)
        assert compile_counters.snapshot() - before == compile_counters.CompileCounts()

    @pytest.mark.parametrize("cache", ["", *(f"+{cache}" for cache in CACHES if cache not in INSIDE_BLOCKS)])
    def test_every_block_is_seen_to_run_compiled(self, prepare, generate, dynamo_only, cache):
        prepared = prepare(f"fp32+compile{cache}")
        ran = watched(prepared, generate)
        assert ran["ran_compiled_regions"] == 4
        assert prepared.contradictions(ran) == ()

    def test_a_block_that_silently_runs_eager_is_a_contradiction(self, prepare, generate, dynamo_only):
        prepared = prepare("fp32+compile")
        vars(prepared._host.blocks()[2]).pop("forward")
        ran = watched(prepared, generate)
        assert prepared.problems() == ()
        said = "compile was asked for, but in a step 3 of the 4 blocks ran compiled"
        assert prepared.contradictions(ran) == (said,)

    def test_past_the_limit_of_recompilations_nothing_passes_as_compiled(self, prepare, generate, dynamo_only):
        """Some versions of dynamo go on in eager without a word, others raise."""
        import torch

        prepared = prepare("fp32+compile")
        gave_up = contextlib.suppress(torch._dynamo.exc.FailOnRecompileLimitHit)
        with torch._dynamo.config.patch(recompile_limit=1), gave_up:
            assert prepared.contradictions(watched(prepared, generate, size=48))

    def test_undoing_one_leaves_another_compiled(self, pool, generate, dynamo_only):
        first = pool.acquire(parse("fp32+compile"), steps=8)
        second = pool.acquire(parse("fp32+compile"), steps=8, replica=1)
        generate(first)
        generate(second)
        before = compile_counters.snapshot()
        first.release()
        generate(second)
        assert (compile_counters.snapshot() - before).graphs == 0
        second.release()
        again = pool.acquire(parse("fp32+compile"), steps=8)
        generate(again)
        assert (compile_counters.snapshot() - before).graphs == 3, "dynamo's state outlived the last compiled pipeline"
        again.release()

    def test_a_recompilation_is_counted_with_its_reason(self, prepare, generate, dynamo_only):
        prepared = prepare("fp32+compile")
        generate(prepared)
        before = compile_counters.snapshot()
        generate(prepared, size=48)
        counts = compile_counters.snapshot() - before
        assert counts.graphs == counts.recompiles > 0
        assert all(counts.recompile_reasons)
