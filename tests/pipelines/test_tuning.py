"""``compile:tuned``: the back end, its pass over graphs and its choice of kernels."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sympy
import torch
from torch._inductor.choices import InductorChoices
from torch._inductor.runtime.hints import ReductionHint
from torch._inductor.sizevars import SizeVarAllocator
from torch._inductor.utils import run_and_get_code
from torch._inductor.virtualized import V

from pytest_fluxperf.errors import Unavailable
from pytest_fluxperf.pipelines import compile_counters, optimizations
from pytest_fluxperf.pipelines.optimizations import tuning
from pytest_fluxperf.recipe import parse


def test_its_options_are_inductors():
    assert set(tuning.OPTIONS) <= set(torch._inductor.list_options())


def test_inductor_makes_its_choices_in_these_graphs_only(monkeypatch):
    seen = []
    monkeypatch.setattr(tuning, "compile_fx", lambda *_, config_patches: seen.append((V.choices, config_patches)))
    tuning.backend(None, [])
    ((choices, patches),) = seen
    assert isinstance(choices, tuning.WholeRows)
    assert patches == tuning.OPTIONS
    assert type(V.choices) is InductorChoices


@pytest.mark.parametrize(
    ("hint", "row", "whole"),
    [
        (ReductionHint.INNER, 15360, True),
        (ReductionHint.INNER, 16384, True),
        (ReductionHint.INNER, 16385, False),
        (ReductionHint.OUTER, 15360, False),
        (ReductionHint.OUTER, 64, True),  # inductor's own rule
    ],
)
def test_a_row_that_registers_can_hold_stays_whole(hint, row, whole):
    features = SimpleNamespace(
        get_reduction_hint=lambda: hint, reduction_numel=sympy.Integer(row), numel=sympy.Integer(4608)
    )
    with V.set_graph_handler(SimpleNamespace(sizevars=SizeVarAllocator())):
        assert tuning.WholeRows.should_use_persistent_reduction(features, False) is whole


def test_tanh_by_the_logistic_function_is_tanh():
    x = torch.cat([torch.linspace(-20, 20, 100_001), torch.tensor([-torch.inf, torch.inf, 0.0])])
    traced = torch.fx.experimental.proxy_tensor.make_fx(lambda x: torch.tanh(torch.tanh(x)))(x)
    tuning.TanhByLogistic()(traced.graph)
    traced.recompile()
    targets = [node.target for node in traced.graph.nodes]
    assert torch.ops.aten.tanh.default not in targets
    assert targets.count(torch.ops.aten.sigmoid.default) == 2
    np.testing.assert_allclose(traced(x), torch.tanh(torch.tanh(x.double())), rtol=0, atol=4 * 2**-24)


def test_a_torch_without_these_parts_is_said(pool, monkeypatch, prepare, generate):
    plain = prepare("fp32")
    picture = generate(plain)
    plain.release()
    monkeypatch.delitem(sys.modules, tuning.__name__)
    monkeypatch.delattr(optimizations, "tuning")
    monkeypatch.setitem(sys.modules, "torch._inductor.choices", None)
    with pytest.raises(Unavailable, match=r"compile:tuned needs parts of inductor that this torch lacks \(.*choices"):
        pool.acquire(parse("fp32+compile:tuned"), steps=8)
    np.testing.assert_array_equal(generate(prepare("fp32")), picture)


def test_compiled_blocks_hold_no_tanh_and_draw_the_same_picture(prepare, generate):
    plain = prepare("fp32")
    picture = generate(plain)
    plain.release()
    codes = {}
    for recipe in ("fp32+compile", "fp32+compile:tuned"):
        prepared = prepare(recipe)
        # written anew; only what the C++ compiler made of the same text is taken from the cache
        with (
            torch._inductor.config.patch(fx_graph_cache=False),
            torch._functorch.config.patch(enable_autograd_cache=False),
        ):
            before = compile_counters.snapshot()
            compiled, codes[recipe] = run_and_get_code(lambda prepared=prepared: generate(prepared))
        counts = compile_counters.snapshot() - before
        assert (counts.graphs, counts.graph_breaks) == (3, 0)
        assert prepared.problems() == ()
        np.testing.assert_allclose(compiled, picture, rtol=0, atol=1e-4)
        prepared.release()
    assert "tanh" in "".join(codes["fp32+compile"])
    assert "tanh(" not in "".join(codes["fp32+compile:tuned"])
