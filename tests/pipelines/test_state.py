"""What a test leaves changed in a pipeline is told, and does not reach the next one."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_fluxperf.pipelines import loading
from pytest_fluxperf.pipelines.pool import Pool
from pytest_fluxperf.pipelines.state import Snapshot
from pytest_fluxperf.recipe import parse


def load_lora(pipe):
    import torch
    from peft import LoraConfig

    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    assert any("lora" in name for name, _ in pipe.transformer.named_parameters())
    assert not torch.is_grad_enabled() or pipe.transformer.peft_config


def wrap_decode(pipe):
    decode = pipe.vae.decode
    pipe.vae.decode = lambda latents, **more: decode(1.1 * latents, **more)


def wrap_encode(pipe):
    encode = pipe.encode_prompt
    pipe.encode_prompt = lambda **arguments: encode(**{**arguments, "prompt": "two green squares"})


def wrap_step(pipe):
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda output, *more, **named: step(0.9 * output, *more, **named)


def replace_scheduler(pipe):
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, use_dynamic_shifting=False, shift=9.0)


def shift(pipe):
    pipe.scheduler.register_to_config(use_dynamic_shifting=False)
    pipe.scheduler.set_shift(9.0)


def hook(pipe):
    pipe.transformer.proj_out.register_forward_hook(lambda module, inputs, output: 0.9 * output)


def replace_module(pipe):
    import torch

    pipe.transformer.single_transformer_blocks[0].act_mlp = torch.nn.ReLU()


def remove_block(pipe):
    del pipe.transformer.single_transformer_blocks[-1]


def replace_weight(pipe):
    import torch

    linear = pipe.transformer.proj_out
    linear.weight = torch.nn.Parameter(0.9 * linear.weight)


def switch(pipe):
    pipe.vae.enable_tiling()
    pipe.vae.tile_latent_min_size = 2


def configure(pipe):
    pipe.vae.register_to_config(shift_factor=0.3)


def configure_encoder(pipe):
    pipe.text_encoder_2.config.dropout_rate = 0.5


def train(pipe):
    pipe.vae.train()


@pytest.fixture
def own_pool(info):
    pool = Pool(info, "cpu")
    yield pool
    pool.close()


CHANGES = {
    load_lora: "transformer.transformer_blocks.0.attn._modules",
    wrap_decode: "vae.decode",
    wrap_encode: "pipe.encode_prompt",
    wrap_step: "scheduler.step",
    replace_scheduler: "pipe.scheduler",
    shift: "scheduler._shift",
    hook: "transformer.proj_out._forward_hooks",
    replace_module: "transformer.single_transformer_blocks.0._modules",
    remove_block: "transformer.single_transformer_blocks._modules",
    replace_weight: "transformer.proj_out._parameters",
    switch: "vae.use_tiling",
    configure: "vae._internal_dict",
    configure_encoder: "text_encoder_2.config.dropout_rate",
    train: "vae.training",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_put_back_and_told(own_pool, generate, untouched, change):
    prepared = own_pool.acquire(parse("fp32+fora"), steps=8).hand_out()
    transformer = prepared.pipe.transformer
    generate(prepared)
    change(prepared.pipe)
    if change not in (configure_encoder, train, switch):
        assert not np.array_equal(generate(prepared, steps=2), untouched())
    changes = prepared.park()
    assert CHANGES[change] in changes.attributes
    assert not changes.lost
    assert str(changes).endswith("; put back as it was")
    again = own_pool.acquire(parse("fp32"), steps=8).hand_out()
    assert again.pipe.transformer is transformer
    np.testing.assert_array_equal(generate(again), untouched())
    assert not any(again.release())


def scale_in_place(pipe):
    pipe.transformer.proj_out.weight.data.mul_(1.01)


def swap_data(pipe):
    linear = pipe.vae.decoder.conv_in
    linear.weight.data = 1.01 * linear.weight.data


def halve(pipe):
    pipe.text_encoder_2.half().float()


@pytest.mark.parametrize("change", [scale_in_place, swap_data, halve])
@pytest.mark.parametrize("recipe", ["fp32", "fp32+fbcache:0.5"])
def test_a_pipeline_whose_weights_were_changed_is_loaded_anew(own_pool, generate, untouched, recipe, change):
    prepared = own_pool.acquire(parse(recipe), steps=8).hand_out()
    spoilt = prepared.pipe
    change(spoilt)
    changes = prepared.park()
    assert changes.lost
    assert str(changes).endswith("it is loaded anew")
    again = own_pool.acquire(parse("fp32"), steps=8).hand_out()
    assert again.pipe is not spoilt
    np.testing.assert_array_equal(generate(again), untouched())


def test_a_pipeline_that_was_never_given_back_is_put_right_for_the_next_recipe(own_pool, generate, untouched):
    first = own_pool.acquire(parse("fp32"), steps=8).hand_out()
    hook(first.pipe)
    np.testing.assert_array_equal(generate(own_pool.acquire(parse("fp32"), steps=8)), untouched())
    first = own_pool.acquire(parse("fp32"), steps=8).hand_out()
    scale_in_place(first.pipe)
    np.testing.assert_array_equal(generate(own_pool.acquire(parse("fp32"), steps=8)), untouched())


@pytest.mark.parametrize(
    "recipe",
    [
        "fp32",
        "fp32+fbcache:0.5",
        "fp32+fbcache:0.5,engine=para-attn",
        "fp32+fbcache:0.5,engine=cache-dit",
        "fp32+teacache:0.5",
        "fp32+fora",
        "fp32+taylorseer",
        "fp32+magcache",
        "fp32+pab",
        "fp32+fastercache",
        "fp32+int8wo",
        "fp32+fuseqkv",
        "fp32+math",
        "fp32+vae_tiling",
    ],
)
def test_a_generation_changes_nothing(own_pool, generate, recipe):
    prepared = own_pool.acquire(parse(recipe), steps=8).hand_out()
    generate(prepared)
    generate(prepared)
    assert not any(prepared.park())


def test_what_a_fixture_undid_itself_is_no_change(info):
    pipe = loading.load(info, "fp32", "cpu")
    snapshot = Snapshot(pipe)
    load_lora(pipe)
    pipe.unload_lora_weights()
    pipe.vae.decode = pipe.vae.decode
    assert "decode" in vars(pipe.vae)
    assert not any(snapshot.restore())


def test_weights_of_one_byte_and_of_odd_sizes_are_summed():
    import torch

    from pytest_fluxperf.pipelines.state import _sum_of_bits

    for tensor in (torch.arange(13, dtype=torch.uint8), torch.randn(3, 5)[:, 1:], torch.randn(7, dtype=torch.bfloat16)):
        before = _sum_of_bits(tensor)
        assert before == _sum_of_bits(tensor.clone())
        tensor[-1] += 1
        assert before != _sum_of_bits(tensor)
    assert _sum_of_bits(torch.empty(3, device="meta")) is None
