"""What one step really ran: attention kernels, dtypes, casts and compiled regions, eager and compiled."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from pytest_fluxperf.measure.observe import Observation, first_step


class Block(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.linear = torch.nn.Linear(16, 16, dtype=dtype)
        self.upcast = False

    def forward(self, x):
        x = self.linear(x)
        if self.upcast:
            x = x.to(torch.float64).abs().to(x.dtype)
        q = x.view(1, 2, -1, 8)
        return x + scaled_dot_product_attention(q, q, q).reshape(x.shape)


class Named:
    """An event of which nothing but the name is known."""

    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name

    def dtypes(self):
        return []


class Transformer(torch.nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(dtype) for _ in range(3)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@torch.no_grad()
def observe(transformer, calls=1, dtype=torch.float32):
    observation = Observation()
    with first_step(transformer, observation):
        for _ in range(calls):
            transformer(torch.ones(1, 4, 16, dtype=dtype))
    return observation.facts


def test_the_kernel_that_ran_is_named():
    module = Transformer()
    assert observe(module)["ran_attention"] == ["flash"]
    with sdpa_kernel(SDPBackend.MATH):
        assert observe(module)["ran_attention"] == ["math"]


def test_only_the_first_step_is_watched():
    module = Transformer()
    module.blocks[0].upcast = True
    assert observe(module, calls=3)["ran_casts"] == 2
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_an_upcast_in_every_block_is_counted():
    module = Transformer()
    before = observe(module)["ran_casts"]
    for block in module.blocks:
        block.upcast = True
    assert observe(module)["ran_casts"] == before + 6


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")])
def test_dtypes_of_products_and_weights(dtype, name):
    facts = observe(Transformer(dtype), dtype=dtype)
    assert facts["ran_matmul_dtypes"] == [name]
    assert facts["weight_dtypes"] == [name]


def test_compiled_blocks_are_seen_and_not_compiled_again():
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    module = Transformer()
    for block in module.blocks:
        block.forward = torch.compile(block.forward, fullgraph=True, backend="eager")
    observe(module)
    graphs = counters["stats"]["unique_graphs"]
    facts = observe(module)
    assert facts["ran_compiled_regions"] == 3
    assert facts["ran_attention"] == ["flash"]
    assert facts["ran_matmul_dtypes"] == ["float32"]
    assert counters["stats"]["unique_graphs"] == graphs
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("ran", "seen"),
    [
        (["flash_attn_3::_flash_attn_forward", "triton_poi_fused__flash_attn_forward_cat_view_2"], ["flash_attn_3"]),
        (["flash_attn::_flash_attn_forward"], ["flash_attn"]),
        (["flash_attn_cute::forward"], ["flash_attn_4"]),
        (["sageattention_sm90::qk_int8_sv_f8_accum_f32_fuse_v_scale_attn_inst_buf"], ["sage"]),
        (["triton_tem_fused_flex_attention_0"], ["flex"]),
    ],
)
def test_what_is_fused_around_attention_is_no_attention(ran, seen):
    observation = Observation()
    observation.note([Named(name) for name in ran])
    assert observation.facts["ran_attention"] == seen


def test_a_step_that_raises_leaves_no_profiler_behind():
    module = Transformer()
    with pytest.raises(RuntimeError), first_step(module, Observation()):
        module(torch.ones(1, 4, 3))
    assert not torch._C._autograd._profiler_enabled()
    assert observe(module)["ran_attention"] == ["flash"]


def test_a_users_own_profiler_is_left_alone():
    module = Transformer()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as theirs:
        assert observe(module) == {}
    assert any(event.name() == "aten::addmm" for event in theirs.profiler.kineto_results.events())
