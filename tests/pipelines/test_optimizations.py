"""Each optimization's own matters: what it needs, what it refuses, what it really touches."""

from __future__ import annotations

import importlib
import logging
import re
import sys
import types

import fakekernels
import numpy as np
import pytest
from tinyflux import STEPS

from pytest_fluxperf.errors import FluxPerfError, Unavailable
from pytest_fluxperf.machine.software import STACK
from pytest_fluxperf.pipelines.optimizations import attention, base, compilation, presets
from pytest_fluxperf.pipelines.optimizations.base import Applied, Host, Optimization, Stage
from pytest_fluxperf.pipelines.pool import survey, unavailable
from pytest_fluxperf.recipe import Recipe, Token, TokenSpec, parse, specs


class TestAvailability:
    @pytest.mark.parametrize(
        ("recipe", "reason"),
        [
            ("bf16+cudnn", "cudnn needs a CUDA GPU of compute capability 8.0 or higher; the device is cpu"),
            ("bf16+efficient", "efficient needs a CUDA GPU"),
            ("bf16+fa2:package", "fa2:package needs the package flash-attn>=2.6.3, which is not installed"),
            (
                "bf16+fa3",
                "fa3 needs the package flash-attn-3, which is not installed (PyPI has no such version: "
                "build it from its sources); it needs a CUDA GPU",
            ),
            ("bf16+fa4", "fa4 needs the package flash-attn-4"),
            (
                "bf16+sage",
                "sage needs the package sageattention>=2.1.1, which is not installed (PyPI has no such version",
            ),
            ("bf16+xformers", "xformers needs the package xformers>=0.0.29"),
            ("bf16+fp8", "fp8 needs a CUDA GPU of compute capability 8.9 or higher; the device is cpu"),
            ("bf16+fp8:tensor", "fp8:tensor needs a CUDA GPU"),
            ("bf16+int4wo", "int4wo needs a CUDA GPU"),
            ("bf16+tensorrt", "tensorrt needs the package torch-tensorrt, which is not installed"),
            ("bf16+ulysses:2", "ulysses:2 needs 2 processes with a GPU each, started by torchrun"),
            ("bf16+ring:4", "ring:4 needs 4 processes"),
        ],
    )
    def test_what_a_cpu_lacks_is_named(self, pool, recipe, reason):
        assert unavailable(parse(recipe), "cpu").startswith(reason)
        with pytest.raises(Unavailable, match=r"^recipe "):
            pool.acquire(parse(recipe), steps=STEPS)

    @pytest.mark.parametrize(
        "recipe", ["fp32", "bf16+fa2", "fp32+math", "fp32+flex", "bf16+int8", "fp32+fp8wo+compile", "fastest"]
    )
    def test_what_a_cpu_runs(self, recipe):
        assert unavailable(parse(recipe), "cpu") is None

    @pytest.mark.parametrize(
        ("capability", "recipe", "reason"),
        [
            ((8, 0), "bf16+fp8", "fp8 needs a CUDA GPU of compute capability 8.9 or higher; this one has 8.0"),
            ((8, 9), "bf16+fp8", None),
            ((8, 0), "bf16+cudnn", None),
            ((8, 0), "fp32+fa2", "fa2 computes in fp16 and bf16 only on a GPU"),
            ((8, 0), "fp32+math", None),
            ((7, 5), "bf16+cudnn", "cudnn needs a CUDA GPU of compute capability 8.0 or higher; this one has 7.5"),
        ],
    )
    def test_what_a_gpu_lacks(self, monkeypatch, capability, recipe, reason):
        monkeypatch.setattr(base, "cuda_capability", lambda device: capability)
        assert unavailable(parse(recipe), "cuda") == reason

    def test_the_survey_lists_every_choice_with_its_reason(self, monkeypatch):
        import importlib.util

        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "para_attn" else find(name))
        listed = {str(token): reason for token, reason in survey("cpu")}
        assert {spec.name for spec in specs()} == {text.partition(":")[0] for text in listed}
        assert listed["bf16"] is None
        assert listed["fbcache:T"] is None
        assert "para-attn" in listed["fbcache:T,engine=para-attn"]
        assert listed["fbcache:T,engine=cache-dit"] is None
        assert listed["fa2"] is None
        assert "flash-attn" in listed["fa2:package"]
        assert listed["compile:whole"] is None
        assert "2.6.3" not in listed["fp8:tensor"]
        assert listed["fastest"] is None
        assert listed["ulysses:N"].startswith("needs N processes")

    def test_a_package_that_is_missing_is_named(self, monkeypatch):
        import importlib.util

        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in ("para_attn", "torchao") else find(name)
        )
        assert "para-attn" in unavailable(parse("fp32+fbcache:0.3,engine=para-attn"), "cpu")
        assert "torchao" in unavailable(parse("fp32+int8wo"), "cpu")
        assert unavailable(parse("fp32+fbcache:0.3,engine=cache-dit"), "cpu") is None

    def test_every_package_that_a_token_needs_is_part_of_the_stack_that_the_gate_compares(self, monkeypatch):
        import importlib.util

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        reasons = [reason or "" for _, reason in survey("cpu")]
        needed = {name for reason in reasons for name in re.findall(r"needs the package ([a-z0-9-]+)", reason)}
        assert needed >= {"flash-attn", "flash-attn-3", "flash-attn-4", "sageattention", "torch-tensorrt", "torchao"}
        assert needed <= set(STACK)

    @pytest.fixture
    def packages(self, monkeypatch, tmp_path):
        """An empty folder that packages are imported from."""
        monkeypatch.syspath_prepend(tmp_path)
        yield tmp_path
        for name in [name for name in sys.modules if name.partition(".")[0] == "flash_attn"]:
            del sys.modules[name]

    def test_a_folder_that_another_package_made_is_no_package(self, packages):
        """flash-attn-4 brings flash_attn/cute and no flash_attn/__init__.py, which is flash-attn's."""
        (packages / "flash_attn" / "cute").mkdir(parents=True)
        (packages / "flash_attn" / "cute" / "__init__.py").touch()
        assert base.needs_package("flash_attn.cute", "flash-attn-4") is None
        lacking = "needs the package flash-attn>=2.6.3, which is not installed"
        assert base.needs_package("flash_attn", "flash-attn>=2.6.3") == lacking

    def test_a_package_that_does_not_import_hides_what_lies_in_it(self, packages):
        """As flash-attn does after an upgrade of torch, and FlashAttention 4 lies in its folder."""
        (packages / "flash_attn" / "cute").mkdir(parents=True)
        (packages / "flash_attn" / "cute" / "__init__.py").touch()
        (packages / "flash_attn" / "__init__.py").write_text("raise ImportError('undefined symbol:\\n_ZN3c10')")
        lacking = (
            "needs the package flash-attn-4, but flash_attn does not import: ImportError: undefined symbol: _ZN3c10"
        )
        assert base.needs_package("flash_attn.cute", "flash-attn-4") == lacking


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("fp32+cudnn", "'cudnn' computes in fp16 and bf16 only; write bf16 in place of fp32"),
        ("fp32+fp8", "'fp8' quantizes bf16 weights only; write bf16 in place of fp32"),
        ("fp16+int4wo", "'int4wo' quantizes bf16 weights only"),
        ("bf16+pab+compile", "'pab' decides inside the blocks"),
        ("bf16+taylorseer+compile", "'taylorseer' decides inside the blocks"),
        ("bf16+fastercache+compile:tuned", "'fastercache' decides inside the blocks"),
        ("bf16+magcache+compile:whole", "use compile"),
        ("bf16+fastest", "'fastest' is a whole recipe and stands alone"),
        ("bf16+lora", "'lora' needs its PATH"),
        ("bf16+ulysses:2+ring:2", "a recipe has one parallel token"),
        ("bf16+ulysses:1", "N must be a whole number of at least 2"),
    ],
)
def test_impossible_combinations_are_refused(recipe, reason):
    with pytest.raises(FluxPerfError) as error:
        parse(recipe)
    assert reason in str(error.value)


def test_every_token_has_a_summary_and_a_usage():
    for spec in specs():
        assert spec.summary
        assert spec.usage.startswith(spec.name)


class TestAttention:
    def test_the_process_default_is_left_alone(self, prepare):
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry

        default = _AttentionBackendRegistry.get_active_backend()[0]
        prepared = prepare("fp32+math")
        assert _AttentionBackendRegistry.get_active_backend()[0] is default
        assert prepared.facts()["attention"] == ["_native_math"]
        prepared.release()
        assert attention.seen_backends(prepared.pipe.transformer) == ["native"]
        assert all(p._attention_backend is None for p in attention.processors(prepared.pipe.transformer))

    def test_a_back_end_set_behind_our_back_is_a_problem(self, prepare):
        prepared = prepare("fp32+fa2")
        assert prepared.problems() == ()
        prepared.pipe.transformer.transformer_blocks[0].attn.processor._attention_backend = "native"
        assert prepared.problems() == (
            "attention back end _native_flash was asked for, but _native_flash, native is set",
        )

    def test_a_back_end_that_diffusers_refuses_is_unavailable(self, pool, monkeypatch):
        monkeypatch.setattr(base, "cuda_capability", lambda device: (9, 0))
        monkeypatch.setattr(attention, "needs_package", lambda module, install: None)
        with pytest.raises(Unavailable, match="sage"):
            pool.acquire(parse("bf16+sage"), steps=STEPS)


class TestAttentionPackages:
    """Of other projects: one that is installed may be unable to compute."""

    PACKAGES = ("fa2:package", "fa3", "fa4", "sage", "xformers")

    @pytest.mark.parametrize("token", PACKAGES)
    def test_one_that_cannot_compute_is_unavailable_and_leaves_nothing(
        self, pool, prepare, generate, untouched, monkeypatch, token
    ):
        from diffusers.models.attention_dispatch import _HUB_KERNELS_REGISTRY, _AttentionBackendRegistry

        hub = {name: known.kernel_fn for name, known in _HUB_KERNELS_REGISTRY.items()}
        default = _AttentionBackendRegistry.get_active_backend()[0]
        fakekernels.install(monkeypatch, token, fakekernels.cannot(NotImplementedError(fakekernels.NO_OPERATOR)))
        with pytest.raises(Unavailable) as error:
            pool.acquire(parse(f"bf16+{token}"), steps=STEPS)
        first_line = "No operator found for `memory_efficient_attention_forward` with inputs"
        assert str(error.value).startswith("attention back end ")
        assert str(error.value).endswith(f" cannot compute here: NotImplementedError: {first_line}")
        assert {name: known.kernel_fn for name, known in _HUB_KERNELS_REGISTRY.items()} == hub
        assert _AttentionBackendRegistry.get_active_backend()[0] is default
        assert not pool._bases["bf16", 0].layers
        plain = prepare("bf16")
        assert attention.seen_backends(plain.pipe.transformer) == ["native"]
        np.testing.assert_array_equal(generate(plain), untouched("bf16"))

    def test_the_version_is_told_where_it_is_known(self, pool, monkeypatch, tmp_path):
        fakekernels.install(monkeypatch, "xformers", fakekernels.cannot(NotImplementedError("No operator found")))
        installed = tmp_path / "xformers-0.0.35.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Name: xformers\nVersion: 0.0.35\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(Unavailable) as error:
            pool.acquire(parse("bf16+xformers"), steps=STEPS)
        assert str(error.value) == (
            "attention back end xformers cannot compute here: NotImplementedError: No operator found (xformers 0.0.35)"
        )

    @pytest.mark.parametrize("token", PACKAGES)
    def test_it_is_tried_once_with_few_tokens_like_the_models(self, prepare, generate, monkeypatch, token):
        import torch

        seen = []

        def compute(*inputs):
            seen.append([(tuple(tensor.shape), tensor.dtype) for tensor in inputs])
            return fakekernels.attend(*inputs)

        fakekernels.install(monkeypatch, token, compute)
        state = torch.get_rng_state()
        prepared = prepare(f"bf16+{token}")
        assert seen == [3 * [((1, attention.TRIED_TOKENS, 2, 16), torch.bfloat16)]]
        assert torch.equal(torch.get_rng_state(), state)
        generate(prepared)
        assert len(seen) == 1 + STEPS * len(attention.processors(prepared.pipe.transformer))
        assert prepared.problems() == ()

    @pytest.mark.parametrize("token", ["fa2", "math", "flex"])
    def test_torchs_own_are_not_tried(self, prepare, monkeypatch, token):
        from diffusers.models import attention_dispatch

        monkeypatch.setattr(attention_dispatch, "dispatch_attention_fn", fakekernels.cannot(RuntimeError("was tried")))
        prepare(f"fp32+{token}")

    def test_too_little_memory_says_nothing_of_the_package(self, pool, monkeypatch):
        import torch

        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        fakekernels.install(monkeypatch, "xformers", fakekernels.cannot(error))
        with pytest.raises(FluxPerfError, match="memory does not suffice") as raised:
            pool.acquire(parse("bf16+xformers"), steps=STEPS)
        assert not isinstance(raised.value, Unavailable)

    def test_one_that_does_not_import_is_unavailable(self, pool, monkeypatch):
        fakekernels.install(monkeypatch, "fa4", fakekernels.attend)
        monkeypatch.setitem(sys.modules, "flash_attn.cute", types.ModuleType("flash_attn.cute"))
        with pytest.raises(Unavailable, match=r"flash_4_hub cannot compute here: AttributeError: .*flash_attn_func"):
            pool.acquire(parse("bf16+fa4"), steps=STEPS)


class TestQuantization:
    @pytest.mark.parametrize(("recipe", "layers"), [("int8wo", 40), ("fp8wo", 40), ("int8", 34)])
    def test_only_linears_of_the_blocks(self, prepare, recipe, layers):
        import torch

        prepared = prepare(f"fp32+{recipe}")
        transformer = prepared.pipe.transformer
        assert prepared.facts()["quantized_layers"] == layers
        assert type(transformer.x_embedder.weight) is torch.nn.Parameter
        assert type(transformer.proj_out.weight) is torch.nn.Parameter
        modulation = transformer.transformer_blocks[0].norm1.linear.weight
        assert (type(modulation) is torch.nn.Parameter) == (recipe == "int8")

    def test_projections_that_fusing_replaced_are_left_alone(self, prepare):
        import torch

        prepared = prepare("fp32+fuseqkv+int8wo")
        attn = prepared.pipe.transformer.transformer_blocks[0].attn
        assert type(attn.to_q.weight) is torch.nn.Parameter
        assert type(attn.to_qkv.weight) is not torch.nn.Parameter

    def test_the_original_weights_come_back_as_the_same_objects(self, prepare):
        transformer = prepare("fp32").pipe.transformer
        weights = dict(transformer.named_parameters())
        prepare("fp32+int8wo")
        assert not any(
            parameter is weights[name] for name, parameter in transformer.named_parameters() if "to_q.w" in name
        )
        prepare("fp32")
        assert all(parameter is weights[name] for name, parameter in transformer.named_parameters())
        assert not any("extra_repr" in vars(module) for module in transformer.modules())

    def test_inductor_settings_are_left_alone(self, prepare):
        import torch._inductor.config as inductor

        before = inductor.coordinate_descent_tuning
        for recipe in ("int8wo", "int8", "fp8wo"):
            prepare(f"fp32+{recipe}")
            assert inductor.coordinate_descent_tuning == before


TORCH_TENSORRT = """
import torch._dynamo

compiled, fails = [], []


@torch._dynamo.register_backend(name="tensorrt")
def tensorrt(graph, inputs, **arguments):
    if fails:
        raise RuntimeError("no engine\\ncould be built")
    compiled.append(arguments)
    return graph.forward
"""


@pytest.fixture(scope="module")
def torch_tensorrt(tmp_path_factory):
    """A package that adds a back end to dynamo as torch-tensorrt does, but runs graphs as they are."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "torch_tensorrt").mkdir()
    (folder / "torch_tensorrt" / "__init__.py").write_text(TORCH_TENSORRT)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(compilation, "needs_cuda", lambda device: None)
        yield importlib.import_module("torch_tensorrt")
        patch.delitem(sys.modules, "torch_tensorrt")


class TestTensorRT:
    def test_blocks_run_in_engines_and_come_back(self, torch_tensorrt, prepare, generate, untouched):
        plain = prepare("fp32")
        eager = generate(plain)
        plain.release()
        prepared = prepare("fp32+tensorrt")
        assert unavailable(parse("bf16+tensorrt"), "cpu") is None
        np.testing.assert_allclose(generate(prepared), eager, atol=1e-5)
        assert torch_tensorrt.compiled
        for told in torch_tensorrt.compiled:
            assert told["options"] == {"use_explicit_typing": True, "pass_through_build_failures": True}
        facts = prepared.facts()
        assert facts["compile"] == "tensorrt"
        assert facts["compiled_graphs"] == len(torch_tensorrt.compiled)
        assert facts["graph_breaks"] == 0
        assert prepared.problems() == ()
        blocks = prepared.pipe.transformer.transformer_blocks
        prepared.release()
        assert all("forward" not in vars(block) for block in blocks)
        np.testing.assert_array_equal(generate(prepare("fp32")), untouched())

    def test_caches_stay_outside(self, torch_tensorrt, prepare, generate):
        dense = prepare("fp32+tensorrt")
        generate(dense)
        dense.park()
        engines = len(torch_tensorrt.compiled)
        cached = prepare("fp32+tensorrt+fbcache:0.3,computed=3")
        generate(cached)
        assert cached.steps.decisions.count("1") == 3
        assert len(torch_tensorrt.compiled) == engines
        assert cached.facts()["graph_breaks"] == 0

    def test_an_engine_that_cannot_be_built_is_no_silent_eager_block(
        self, torch_tensorrt, prepare, generate, untouched
    ):
        torch_tensorrt.fails.append(True)
        try:
            prepared = prepare("fp32+tensorrt")
            with pytest.raises(Exception, match="no engine"):
                generate(prepared)
        finally:
            torch_tensorrt.fails.clear()
        prepared.release()
        np.testing.assert_array_equal(generate(prepare("fp32")), untouched())

    def test_a_package_without_its_libraries_is_told_in_a_line(
        self, prepare, generate, untouched, tmp_path, monkeypatch
    ):
        said = "no TensorRTProxyModule, got Could not find libnvinfer.so.11\\n  Search paths: []"
        (tmp_path / "torch_tensorrt.py").write_text(f"raise Exception('{said}')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
        monkeypatch.setattr(compilation, "needs_cuda", lambda device: None)
        compiled = compilation._active
        with pytest.raises(Unavailable) as error:
            prepare("fp32+tensorrt")
        assert str(error.value) == (
            "torch-tensorrt cannot compile here: Exception: no TensorRTProxyModule, got Could not find libnvinfer.so.11"
        )
        assert compilation._active == compiled
        np.testing.assert_array_equal(generate(prepare("fp32")), untouched())

    @pytest.mark.parametrize(
        ("recipe", "reason"),
        [
            ("bf16+tensorrt+compile", "one compile token"),
            ("bf16+tensorrt:x", "cannot take 'x'; it is written tensorrt"),
            ("bf16+pab:low=800,high=100", "above low=800 and below high=100: there are none"),
            ("bf16+taylorseer+compile:whole", "leave compile:whole out"),
            ("bf16+tensorrt+pab", "leave tensorrt out"),
        ],
    )
    def test_what_it_cannot_stand_beside(self, recipe, reason):
        with pytest.raises(FluxPerfError, match=reason):
            parse(recipe)


class TestLora:
    @pytest.fixture
    def weights(self, tmp_path):
        import torch
        from safetensors.torch import save_file

        def save(name="lora.safetensors", **layers):
            generator = torch.Generator().manual_seed(0)
            tensors = {}
            for layer, (outputs, inputs) in layers.items():
                key = "transformer." + layer.replace("__", ".")
                tensors[f"{key}.lora_A.weight"] = torch.randn(4, inputs, generator=generator) * 0.3
                tensors[f"{key}.lora_B.weight"] = torch.randn(outputs, 4, generator=generator) * 0.3
            save_file(tensors, tmp_path / name)
            return tmp_path / name

        return save

    def test_weights_are_the_sum_and_come_back(self, prepare, generate, untouched, weights):
        from safetensors.torch import load_file

        path = weights(transformer_blocks__0__attn__to_q=(32, 32), single_transformer_blocks__1__proj_mlp=(128, 32))
        transformer = prepare("fp32").pipe.transformer
        names = [name for name, _ in transformer.named_modules()]
        attributes = set(vars(transformer))
        original = transformer.transformer_blocks[0].attn.to_q.weight
        prepared = prepare(f"fp32+lora:{path},scale=0.5")
        tensors = load_file(path)
        key = "transformer.transformer_blocks.0.attn.to_q"
        delta = tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]
        np.testing.assert_allclose(
            transformer.transformer_blocks[0].attn.to_q.weight, original + 0.5 * delta, atol=1e-6
        )
        assert not np.array_equal(generate(prepared), untouched())
        assert prepared.facts()["lora_layers"] == 2
        assert prepared.problems() == ()
        prepared.release()
        assert transformer.transformer_blocks[0].attn.to_q.weight is original
        assert [name for name, _ in transformer.named_modules()] == names
        assert set(vars(transformer)) == attributes
        np.testing.assert_array_equal(generate(prepare("fp32")), untouched())

    FEW = 2
    """Steps of a few-step adapter, which is served by itself and fused at a fraction of its strength."""

    @pytest.fixture
    def few_steps(self, info, tmp_path):
        """An adapter of every linear layer of the blocks, as peft names and diffusers saves it."""
        import torch
        from diffusers import FluxPipeline
        from peft import LoraConfig
        from peft.utils import get_peft_model_state_dict

        from pytest_fluxperf.pipelines import loading

        transformer = loading.load(info, "fp32", "cpu").transformer
        layers = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
        layers += ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out"]
        torch.manual_seed(0)
        transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=layers, init_lora_weights=False))
        state = get_peft_model_state_dict(transformer)
        FluxPipeline.save_lora_weights(tmp_path, transformer_lora_layers=state, weight_name="few-steps.safetensors")
        return tmp_path / "few-steps.safetensors"

    def test_a_few_step_adapter_from_diffusers_own_hand(self, prepare, generate, few_steps):
        from safetensors import safe_open

        with safe_open(few_steps, "pt") as file:
            names = set(file.keys())
        assert "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight" in names
        plain = prepare("fp32", steps=self.FEW)
        without = generate(plain, steps=self.FEW)
        weights = {name: weight.clone() for name, weight in plain.pipe.transformer.named_parameters()}
        plain.release()
        pictures = {}
        for scale in (0.125, 0.25):
            prepared = prepare(f"fp32+lora:{few_steps},scale={scale}", steps=self.FEW)
            pictures[scale] = generate(prepared, steps=self.FEW)
            assert prepared.steps.decisions == "1" * self.FEW
            assert prepared.problems() == ()
            assert 2 * prepared.facts()["lora_layers"] == len(names)  # all of the file, A and B of each layer
            prepared.release()
        differences = [np.abs(picture - without).mean() for picture in pictures.values()]
        assert 0 < differences[0] < differences[1]
        after = prepare("fp32", steps=self.FEW)
        assert all(bool((weights[name] == weight).all()) for name, weight in after.pipe.transformer.named_parameters())
        np.testing.assert_array_equal(generate(after, steps=self.FEW), without)

    def test_a_few_step_adapter_composes(self, prepare, generate, few_steps):
        """As served: fused, quantized, compiled, with a cache that still finds the few steps alike enough."""
        prepared = prepare(f"fp32+lora:{few_steps},scale=0.125+int8wo+fbcache:9", steps=4)
        assert np.isfinite(generate(prepared, steps=4)).all()
        assert prepared.steps.decisions == "1000"
        assert prepared.problems() == ()

    def test_it_composes(self, prepare, generate, untouched, weights):
        path = weights(transformer_blocks__0__attn__to_q=(32, 32))
        alone = generate(prepare(f"fp32+lora:{path}"))
        prepared = prepare(f"fp32+lora:{path}+int8wo+fuseqkv+fora")
        assert not np.array_equal(generate(prepared), alone)
        assert prepared.problems() == ()
        prepared.release()
        np.testing.assert_array_equal(generate(prepare("fp32")), untouched())

    def test_a_path_with_every_special_character(self, prepare, weights):
        path = weights("a+b,c=d e%.safetensors", transformer_blocks__0__attn__to_q=(32, 32))
        written = str(path).replace("%", "%25").replace("+", "%2B").replace(",", "%2C").replace("=", "%3D")
        recipe = parse(f"fp32+lora:{written}")
        assert recipe.switch("lora").value == str(path)
        assert parse(str(recipe)) == recipe

    @pytest.fixture
    def state(self, prepare):
        """Everything that an adapter could leave behind: weights, biases, settings and attributes, by name."""
        import torch

        def read():
            pipe = prepare("fp32").pipe
            found = {"pipe": sorted(vars(pipe))}
            for name in ("transformer", "text_encoder"):
                model = getattr(pipe, name)
                found |= {f"{name}.{key}": value.clone() for key, value in model.state_dict().items()}
                found[name] = (repr(model), str(model.config), sorted(vars(model)))
            return found

        def same(one, other):
            return torch.equal(one, other) if torch.is_tensor(one) else one == other

        def unchanged(before):
            now = read()
            assert now.keys() == before.keys()
            assert [key for key, value in now.items() if not same(value, before[key])] == []

        return read, unchanged

    Q = "transformer.transformer_blocks.0.attn.to_q"
    ENCODER = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"

    def test_biases_and_the_text_encoder_are_fused_and_come_back(self, prepare, generate, untouched, state, tmp_path):
        import torch
        from safetensors.torch import save_file

        read, unchanged = state
        before = read()
        width = before["text_encoder.encoder.layers.0.self_attn.q_proj.weight"].shape[0]
        tensors = {f"{self.Q}.lora_A.weight": torch.ones(4, 32), f"{self.Q}.lora_B.weight": torch.ones(32, 4)}
        tensors[f"{self.Q}.lora_B.bias"] = torch.full((32,), 3.0)
        tensors |= {f"{self.ENCODER}.lora_A.weight": torch.ones(2, width) / 8}
        tensors |= {f"{self.ENCODER}.lora_B.weight": torch.ones(width, 2)}
        save_file(tensors, tmp_path / "both.safetensors")
        prepared = prepare(f"fp32+lora:{tmp_path / 'both.safetensors'},scale=0.5")
        layer = prepared.pipe.transformer.transformer_blocks[0].attn.to_q
        torch.testing.assert_close(layer.weight, before[f"{self.Q}.weight"] + 0.5 * 4)
        torch.testing.assert_close(layer.bias, before[f"{self.Q}.bias"] + 0.5 * 3)
        encoder = prepared.pipe.text_encoder.encoder.layers[0].self_attn.q_proj
        was = before["text_encoder.encoder.layers.0.self_attn.q_proj.weight"]
        torch.testing.assert_close(encoder.weight, was + 0.5 * 2 / 8)
        assert prepared.facts()["lora_layers"] == 2
        assert prepared.problems() == ()
        assert not np.array_equal(generate(prepared), untouched())
        prepared.release()
        unchanged(before)

    def test_a_file_in_kohyas_format(self, prepare, state, tmp_path):
        """One matrix for query, key and value, others' names, and a strength (alpha) of half the rank."""
        import torch
        from safetensors.torch import save_file

        read, unchanged = state
        before = read()
        prefix = "lora_te1_text_model_encoder_layers_0_"
        encoder = prepare("fp32").pipe.text_encoder.encoder.layers[0]
        layers = {
            prefix + f"self_attn_{x}_proj": getattr(encoder.self_attn, f"{x}_proj") for x in ("q", "k", "v", "out")
        }
        layers |= {prefix + f"mlp_{x}": getattr(encoder.mlp, x) for x in ("fc1", "fc2")}
        shapes = {name: layer.weight.shape for name, layer in layers.items()}
        shapes["lora_unet_double_blocks_0_img_attn_qkv"] = (96, 32)
        generator = torch.Generator().manual_seed(0)
        tensors = {}
        for name, (outputs, inputs) in shapes.items():
            tensors[f"{name}.lora_down.weight"] = torch.randn(4, inputs, generator=generator)
            tensors[f"{name}.lora_up.weight"] = torch.randn(outputs, 4, generator=generator)
            tensors[f"{name}.alpha"] = torch.tensor(2.0)
        save_file(tensors, tmp_path / "kohya.safetensors")
        prepared = prepare(f"fp32+lora:{tmp_path / 'kohya.safetensors'}")
        assert prepared.facts()["lora_layers"] == 3 + 6
        assert prepared.problems() == ()
        fused = {self.Q: "lora_unet_double_blocks_0_img_attn_qkv"}
        fused["text_encoder.encoder.layers.0.mlp.fc1"] = prefix + "mlp_fc1"
        for layer, name in fused.items():
            now = prepared.pipe.text_encoder if layer.startswith("text") else prepared.pipe.transformer
            weight = now.get_submodule(layer.partition(".")[2]).weight
            delta = tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"] / 2
            torch.testing.assert_close(weight, before[f"{layer}.weight"] + delta[: len(weight)])
        prepared.release()
        unchanged(before)

    def test_a_file_that_does_not_match_leaves_nothing_behind(self, prepare, state, weights, tmp_path):
        import torch
        from safetensors.torch import load_file, save_file

        good = load_file(weights(transformer_blocks__0__attn__to_q=(32, 32)))

        def altered(name, **tensors):
            path = tmp_path / f"{name}.safetensors"
            save_file(good | {key.replace("__", "."): value for key, value in tensors.items()}, path)
            return path

        (tmp_path / "garbage.safetensors").write_bytes(b"not a safetensors file")
        torch.save(good, tmp_path / "pickle.safetensors")
        embedder = "transformer__x_embedder__lora_"
        cases = {
            weights("unknown.safetensors", nothing=(32, 32)): "transformer.nothing.lora_A.weight, and there is no such",
            weights(
                "narrow.safetensors", transformer_blocks__0__attn__to_q=(32, 31)
            ): "is 4×31, and the layer needs 4×32",
            weights(
                "wide.safetensors", transformer_blocks__0__attn__to_q=(32, 33)
            ): "is 4×33, and the layer needs 4×32",
            weights(
                "short.safetensors", transformer_blocks__0__attn__to_q=(31, 32)
            ): "is 31×4, and the layer needs 32×4",
            weights("block.safetensors", transformer_blocks__99__attn__to_q=(32, 32)): "there is no such linear layer",
            altered(
                "norm", transformer__transformer_blocks__0__attn__norm_q__weight=torch.ones(16)
            ): "is no LoRA weight",
            altered(
                "control",
                **{f"{embedder}A__weight": torch.ones(4, 128), f"{embedder}B__weight": torch.ones(32, 4)},
            ): "x_embedder.lora_A.weight is 4×128",
            altered("half", transformer__x_embedder__lora_A__weight=torch.ones(4, 4)): "without lora_B.weight",
            altered("dora", transformer__x_embedder__dora_scale=torch.ones(4)): "DoRA",
            altered(
                "t5", text_encoder_2__shared__lora_A__weight=torch.ones(4, 4)
            ): "text_encoder_2.shared.lora_A.weight",
            tmp_path / "pickle.safetensors": "header too large",
            tmp_path / "garbage.safetensors": "does not match this pipeline",
            tmp_path / "absent.safetensors": "there is no file",
        }
        read, unchanged = state
        before = read()
        for path, reason in cases.items():
            with pytest.raises(FluxPerfError, match=re.escape(reason)) as error:
                prepare(f"fp32+lora:{path}")
            assert len(str(error.value).splitlines()) == 1
            unchanged(before)


class TestWhole:
    @pytest.mark.parametrize("table", [presets.FASTEST, presets.FASTEST_LOSSLESS])
    def test_tables_hold_recipes_of_every_family(self, table):
        assert set(table) == {"hopper", "blackwell", "ada", "ampere", "cpu"}
        for text in table.values():
            assert str(parse(text)) == text
            assert parse(text).lossless == (table is presets.FASTEST_LOSSLESS)

    @pytest.mark.parametrize(
        ("capability", "family"),
        [
            (None, "cpu"),
            ((8, 0), "ampere"),
            ((8, 6), "ampere"),
            ((8, 9), "ada"),
            ((9, 0), "hopper"),
            ((12, 0), "blackwell"),
        ],
    )
    def test_the_family_follows_the_compute_capability(self, monkeypatch, capability, family):
        monkeypatch.setattr(presets, "cuda_capability", lambda device: capability)
        assert presets.family("cuda") == family

    def test_the_measuring_mode_reaches_the_cache(self):
        expanded = presets.expand(parse("fastest:computed=8"), "cpu")
        assert expanded.token("cache").option("computed") == 8
        assert expanded.token("compile") is not None

    def test_it_runs_as_what_it_stands_for(self, prepare, generate):
        prepared = prepare("fastest:computed=2")
        generate(prepared)
        assert str(prepared.recipe) == "fastest:computed=2"
        assert prepared.facts()["recipe"] == "fp32+fbcache:0.2,computed=2+compile"
        assert prepared.dtype == "fp32"
        assert prepared.steps.decisions == "10001000"
        assert prepared.problems() == ()


def test_a_project_adds_an_optimization(pool, generate):
    """What a conftest does: a token that scales the guidance embedding's bias."""

    class Louder(Applied):
        def __init__(self, host: Host, token: Token) -> None:
            self.linear = host.transformer.proj_out
            self.bias = self.linear.bias.data
            self.factor = float(token.value)

        def apply(self) -> None:
            self.linear.bias.data = self.bias * self.factor

        def undo(self) -> None:
            self.linear.bias.data = self.bias

        def facts(self):
            return {"louder": self.factor}

    from pytest_fluxperf.recipe import Field, number

    def needs(token: Token, recipe: Recipe, device: str) -> str | None:
        return "needs fp32" if recipe.dtype != "fp32" else None

    spec = TokenSpec("louder", "switch", "a project's own", value=Field("factor", number(), "by how much", 2.0))
    base.register(Optimization(spec, Stage.WEIGHTS, Louder, needs))
    try:
        plain = pool.acquire(parse("fp32"), steps=STEPS)
        before = generate(plain)
        prepared = pool.acquire(parse("fp32+louder:3"), steps=STEPS)
        assert not np.array_equal(generate(prepared), before)
        assert prepared.facts()["louder"] == 3.0
        prepared.release()
        plain = pool.acquire(parse("fp32"), steps=STEPS)
        np.testing.assert_array_equal(generate(plain), before)
        plain.release()
        with pytest.raises(Unavailable, match="louder needs fp32"):
            pool.acquire(parse("bf16+louder"), steps=STEPS)
    finally:
        base.unregister("louder")


@pytest.mark.parametrize(
    ("token", "flag"), [("vae_tiling", "use_tiling"), ("vae_tiling:16", "use_tiling"), ("vae_slicing", "use_slicing")]
)
def test_the_vae_is_as_it_was(prepare, token, flag):
    vae = prepare("fp32").pipe.vae
    before = {name: value for name, value in vars(vae).items() if not name.startswith("_")}
    prepared = prepare(f"fp32+{token}")
    assert getattr(vae, flag)
    assert prepared.facts()[token.partition(":")[0]]
    prepared.release()
    assert {name: value for name, value in vars(vae).items() if not name.startswith("_")} == before
    assert not getattr(vae, flag)


@pytest.mark.parametrize(("token", "pixels", "size"), [("vae_tiling", 32, 64), ("vae_tiling:16", 16, 32)])
def test_tiles_are_used_for_a_picture_larger_than_one(prepare, generate, token, pixels, size):
    whole_picture = generate(prepare("fp32"), size=size)
    prepared = prepare(f"fp32+{token}")
    assert not np.array_equal(generate(prepared, size=size), whole_picture)
    assert prepared.facts()["vae_tile_pixels"] == pixels
    assert prepared.problems() == ()


def test_slices_are_used_for_several_pictures(prepare, generate):
    together = generate(prepare("fp32"), num_images_per_prompt=2)
    prepared = prepare("fp32+vae_slicing")
    sizes = []
    hook = prepared.pipe.vae.decoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    sliced = generate(prepared, num_images_per_prompt=2)
    hook.remove()
    assert sizes == [1, 1]
    assert prepared.problems() == ()
    np.testing.assert_allclose(sliced, together, atol=1e-5)


@pytest.mark.parametrize("side", ["8", "100", "0"])
def test_a_tile_that_cannot_be(side):
    with pytest.raises(FluxPerfError, match=r"multiple of 8|at least 16"):
        parse(f"fp32+vae_tiling:{side}")


def test_quiet_is_over_afterwards():
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    from pytest_fluxperf.pipelines.quiet import quiet

    libraries = (diffusers, transformers)

    def settings():
        return [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]

    def inside():
        with quiet():
            seen.extend(settings())
            raise RuntimeError

    before, seen = settings(), []
    with pytest.raises(RuntimeError):
        inside()
    assert seen == 2 * [(logging.ERROR, False)]
    assert settings() == before


def test_quiet_silences_the_libraries_alone(caplog):
    from pytest_fluxperf.pipelines.quiet import quiet

    libraries = ("torchao", "torch.utils._pytree")

    def everyone_speaks():
        for name in (*libraries, "users_own"):
            logging.getLogger(name).warning("warning of %s", name)
            logging.getLogger(name).error("error of %s", name)

    before = [logging.getLogger(name).level for name in libraries]
    with quiet():
        everyone_speaks()
    errors = [f"error of {name}" for name in libraries]
    assert caplog.messages == [*errors, "warning of users_own", "error of users_own"]
    caplog.clear()
    everyone_speaks()
    assert len(caplog.messages) == 6
    assert [logging.getLogger(name).level for name in libraries] == before


def test_flash_attention_4_of_the_package_is_put_back(prepare, monkeypatch):
    """diffusers has one kernel for a process: what took its place goes with the recipe."""
    from diffusers.models import attention_dispatch

    package = types.ModuleType("flash_attn.cute")
    package.flash_attn_func = lambda *_: None
    monkeypatch.setitem(sys.modules, "flash_attn.cute", package)
    transformer = prepare("fp32").pipe.transformer
    name = attention_dispatch.AttentionBackendName(attention.FLASH_ATTENTION_4)
    known = attention_dispatch._HUB_KERNELS_REGISTRY[name]
    hub, before = known.kernel_fn, attention.seen_backends(transformer)
    applied = attention.AttentionBackend(types.SimpleNamespace(transformer=transformer), attention.FLASH_ATTENTION_4)
    applied.apply()
    assert known.kernel_fn is package.flash_attn_func
    assert attention.seen_backends(transformer) == [attention.FLASH_ATTENTION_4]
    applied.undo()
    assert known.kernel_fn is hub
    assert attention.seen_backends(transformer) == before
