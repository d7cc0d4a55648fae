"""Every token is spelled so that it runs, and the LoRA file made for one is fused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
import tinyflux

from pytest_fluxperf.pipelines.models import resolve
from pytest_fluxperf.pipelines.pool import Pool, survey
from pytest_fluxperf.recipe import parse

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MACHINE = SimpleNamespace(dtype="fp32", steps=8, size=64)


@pytest.fixture
def every_recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import every_recipe

    return every_recipe


def test_every_token_of_a_cpu_is_spelled_as_a_recipe(every_recipe, tmp_path):
    tokens = [token for token, lacking in survey("cpu") if not lacking]
    spelled = {every_recipe.spell(token, MACHINE, tmp_path / "lora") for token in tokens}
    assert len(spelled) == len(tokens)
    for text in spelled:
        parse(text)
    assert {
        f"fp32+lora:{tmp_path / 'lora'}",
        "fp32+fbcache:0.3,computed=4",
        "fp32+dbcache:computed=4,front=4",
    } <= spelled
    assert {"fp32+fora", "fp32+vae_tiling:32", "fp16", "fastest"} <= spelled


def test_the_lora_file_is_fused_and_undone(every_recipe, tmp_path):
    import torch
    from safetensors.torch import load_file

    pool = Pool(resolve(str(tinyflux.save(tmp_path / "model"))), "cpu")
    plain = pool.acquire(parse("fp32"), steps=2)
    layer = plain.pipe.transformer.transformer_blocks[0].attn.to_q
    before = layer.weight.detach().clone()
    lora = every_recipe.adapter(plain.pipe.transformer, tmp_path)
    fused = pool.acquire(parse(f"fp32+lora:{lora}"), steps=2)
    change = fused.pipe.transformer.transformer_blocks[0].attn.to_q.weight - before
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 16
    assert fused.facts()["lora_layers"] == sum(name.endswith("lora_A.weight") for name in load_file(lora)) > 16
    fused.release()
    assert torch.equal(plain.pipe.transformer.transformer_blocks[0].attn.to_q.weight, before)
    pool.close()
