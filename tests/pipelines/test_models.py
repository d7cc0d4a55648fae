"""Which weights: names, folders, hub ids; and loading them, or saying why not."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tinyflux

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines import loading, models, randomflux
from pytest_fluxperf.pipelines.integrity import WEIGHTS
from pytest_fluxperf.pipelines.models import Defaults, resolve


@pytest.fixture
def fake(tmp_path):
    """``fake(class_name, guidance_embeds, settings)`` writes the JSON files of a pipeline without weights."""

    def write(kind="FluxPipeline", guidance=True, settings=None):
        (tmp_path / "transformer").mkdir(exist_ok=True)
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
        (tmp_path / "transformer" / "config.json").write_text(json.dumps({"guidance_embeds": guidance}))
        if settings is not None:
            (tmp_path / "fluxperf.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
        return tmp_path

    return write


def test_named_models():
    assert resolve("flux-dev").source == "black-forest-labs/FLUX.1-dev"
    assert resolve("flux-dev").defaults == Defaults(1024, 28, 3.5, 512, "bf16")
    assert resolve("flux-dev").teacache_coefficients == models.FLUX_DEV_TEACACHE_COEFFICIENTS
    assert resolve("flux-schnell").defaults.steps == 4
    assert resolve("black-forest-labs/FLUX.1-dev") == resolve("flux-dev")
    other = resolve("someone/flux-finetune")
    assert (other.source, other.teacache_coefficients, other.random) == ("someone/flux-finetune", None, False)


def test_random_weights_say_what_they_cannot_show():
    info = resolve("flux-dev@random")
    assert info.random
    assert info.name == "flux-dev@random"
    assert len(info.caveats) == 2
    assert "image quality" in info.caveats[0]
    assert not resolve("flux-dev").caveats


def test_a_folder(fake):
    info = resolve(str(fake()))
    assert info.defaults == models._DEV.defaults
    assert resolve(str(fake(guidance=False))).defaults == models._SCHNELL.defaults
    settings = {"size": 256, "steps": 12, "teacache_coefficients": [1, 2.5]}
    info = resolve(str(fake(settings=settings)))
    assert (info.defaults.size, info.defaults.steps, info.defaults.guidance) == (256, 12, 3.5)
    assert info.teacache_coefficients == (1.0, 2.5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("flux-dve", r"no such folder and no known name \(did you mean 'flux-dev'\?\); there are tiny, flux-dev"),
        ("tiny@random", "random weights exist for flux-dev@random and flux-schnell@random"),
        ("", "no such folder"),
        ("/nowhere/at/all", "no such folder"),
    ],
)
def test_an_unknown_name_is_refused(name, reason):
    with pytest.raises(FluxPerfError, match=reason):
        resolve(name)


def test_a_folder_that_is_no_flux_pipeline_is_refused(tmp_path, fake):
    with pytest.raises(
        FluxPerfError, match=r"not a diffusers pipeline as save_pretrained writes it: model_index\.json"
    ):
        resolve(str(tmp_path))
    with pytest.raises(FluxPerfError, match="is a StableDiffusionPipeline, not a FluxPipeline"):
        resolve(str(fake("StableDiffusionPipeline")))
    with pytest.raises(FluxPerfError, match=r"fluxperf\.json is not JSON"):
        resolve(str(fake(settings="{")))
    (tmp_path / "fluxperf.json").unlink()
    (tmp_path / "model_index.json").write_text("[1]")
    with pytest.raises(FluxPerfError, match="holds no object"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"setps": 3}, "Object contains unknown field `setps`"),
        ({"steps": "8"}, r"Expected `int \| null`, got `str` - at `\$\.steps`"),
        ({"steps": 2.5}, r"at `\$\.steps`"),
        ({"steps": 0}, r"`int` >= 1 - at `\$\.steps`"),
        ({"size": -16}, r"`int` >= 16 - at `\$\.size`"),
        ({"size": 250}, r"multiple of 16 - at `\$\.size`"),
        ({"guidance": "x"}, r"at `\$\.guidance`"),
        ({"guidance": float("nan")}, r"at `\$\.guidance`"),
        ({"dtype": "int3"}, r"Invalid enum value 'int3' - at `\$\.dtype`"),
        ({"teacache_coefficients": []}, r"at `\$\.teacache_coefficients`"),
        ({"teacache_coefficients": [1, "2"]}, r"at `\$\.teacache_coefficients\[1\]`"),
    ],
)
def test_settings_that_mean_nothing_are_refused_with_their_place(fake, settings, reason):
    with pytest.raises(FluxPerfError, match=rf"^\S+fluxperf\.json: .*{reason}"):
        resolve(str(fake(settings=settings)))


def test_resolving_imports_nothing_heavy():
    program = (
        "import sys; from pytest_fluxperf.pipelines.models import resolve; resolve('flux-dev@random');"
        "print([m for m in ('torch', 'numpy', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestExplanations:
    LOGIN, DOWNLOAD = "`hf auth login`", "`hf download black-forest-labs/FLUX.1-dev`"

    @pytest.fixture(autouse=True)
    def cache(self, monkeypatch, tmp_path):
        """An empty cache of the hub's."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache"

    def explained(self, monkeypatch, error, model="flux-dev"):
        import diffusers

        def fail(*_, **__):
            raise error

        monkeypatch.setattr(diffusers.FluxPipeline, "download", fail)
        monkeypatch.setattr(diffusers.FluxPipeline, "from_pretrained", fail)
        with pytest.raises(FluxPerfError) as caught:
            loading.load(resolve(model), "bf16", "cpu")
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    def response(self, status):
        from unittest.mock import Mock

        return Mock(status_code=status, headers={})

    def test_gated(self, monkeypatch):
        from huggingface_hub.errors import GatedRepoError

        text = self.explained(monkeypatch, GatedRepoError("no", response=self.response(403)))
        assert "is gated: accept its licence at https://huggingface.co/black-forest-labs/FLUX.1-dev" in text
        assert self.LOGIN in text
        assert self.DOWNLOAD in text

    def test_absent(self, monkeypatch):
        from huggingface_hub.errors import RepositoryNotFoundError

        text = self.explained(monkeypatch, RepositoryNotFoundError("no", response=self.response(404)))
        assert "the hub has no black-forest-labs/FLUX.1-dev" in text
        assert self.LOGIN in text
        assert text.endswith(self.DOWNLOAD)

    def test_offline_even_when_wrapped(self, monkeypatch):
        from huggingface_hub.errors import LocalEntryNotFoundError

        error = OSError("something general")
        error.__cause__ = LocalEntryNotFoundError("nothing cached")
        text = self.explained(monkeypatch, error)
        assert "not in the local cache and the hub cannot be reached" in text
        assert self.LOGIN in text
        assert text.endswith(self.DOWNLOAD)

    def test_a_folder_is_not_to_be_downloaded(self, monkeypatch, folder):
        text = self.explained(monkeypatch, ValueError("header\ntoo large"), str(folder))
        assert text.endswith("cannot be loaded (header too large)")

    def test_partly_downloaded(self, monkeypatch, cache, folder):
        """The library's own words do not name the cause: a tokenizer, or some folder without a config.json."""
        import shutil

        repository = cache / "models--black-forest-labs--FLUX.1-dev"
        snapshot = repository / "snapshots" / "0123"
        shutil.copytree(folder, snapshot)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123")
        unclear = ValueError("Couldn't instantiate the backend tokenizer " + "from one of these " * 40)
        text = self.explained(monkeypatch, unclear)
        assert "FLUX.1-dev cannot be loaded (Couldn't instantiate" in text
        assert text.endswith(self.DOWNLOAD)
        shutil.rmtree(snapshot / "vae")
        text = self.explained(monkeypatch, unclear)
        assert f"FLUX.1-dev is incomplete in the local cache ({snapshot / 'vae'}: the folder is missing" in text
        assert "and cannot be loaded (Couldn't instantiate" in text
        assert len(text) < 900
        assert text.endswith(self.DOWNLOAD)


def test_damaged_weights_in_a_folder_are_explained(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    with pytest.raises(FluxPerfError, match="truncated or not a safetensors file"):
        loading.load(resolve(str(tmp_path / "broken")), "fp32", "cpu")


class TestKeys:
    """A weight without a key is random, whatever the library says of it in its log."""

    @pytest.fixture
    def weights(self, folder, tmp_path):
        """``weights(component, change)`` lets ``change`` edit the component's state dict in a copy of the model."""
        import shutil

        from safetensors.torch import load_file, save_file

        copy = shutil.copytree(folder, tmp_path / "model")

        def edit(component, change):
            path = copy / component / f"{WEIGHTS[component]}.safetensors"
            state = load_file(path)
            change(state)
            save_file(state, path, metadata={"format": "pt"})
            return path

        return edit

    def refused(self, tmp_path):
        with pytest.raises(FluxPerfError) as caught:
            loading.load(resolve(str(tmp_path / "model")), "bf16", "cpu")
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    @pytest.mark.parametrize("component", WEIGHTS)
    def test_every_component_is_accounted_for(self, weights, tmp_path, component):
        import torch

        names = []

        def change(state):
            matrices = (key for key in sorted(state) if key.endswith("weight") and state[key].dim() == 2)
            names.extend(key for key in matrices if "_embedder." not in key)  # the transformer's are checked before
            del state[names[0]]
            state["fc.surplus.weight"] = torch.zeros(3)
            state[names[1]] = torch.zeros(7, 5)

        path = weights(component, change)
        text = self.refused(tmp_path)
        assert f"model 'model': {path}: lacks {names[0]}; holds fc.surplus.weight, for which" in text
        assert f"holds {names[1]} in another shape (7×5, where the model needs " in text
        assert text.endswith("weights without a key would be random: fetch or save the model anew")

    def test_the_faults_of_all_components_are_one_error(self, weights, tmp_path):
        def drop(state):
            for key in sorted(state)[-5:]:
                del state[key]

        first, second = weights("vae", drop), weights("text_encoder_2", drop)
        text = self.refused(tmp_path)
        assert f"{first}: lacks " in text
        assert f"; {second}: lacks " in text
        assert " and 2 more; " in text
        assert " and 3 more; " in text  # T5's embedding has two names

    def test_tied_weights_need_one_key(self, weights, tmp_path):
        def tie(state):
            state["encoder.embed_tokens.weight"] = state["shared.weight"].clone()

        weights("text_encoder_2", tie)
        loading.load(resolve(str(tmp_path / "model")), "bf16", "cpu")
        path = weights("text_encoder_2", lambda state: state.pop("encoder.embed_tokens.weight"))
        loading.load(resolve(str(tmp_path / "model")), "bf16", "cpu")
        weights("text_encoder_2", lambda state: state.pop("shared.weight"))
        assert f"{path}: lacks " in self.refused(tmp_path)

    @pytest.mark.parametrize("component", ["transformer", "text_encoder_2"])
    def test_a_shard_holds_what_its_index_promises(self, weights, tmp_path, component):
        import json

        from safetensors.torch import save_file

        whole = {}
        path = weights(component, whole.update)
        path.unlink()
        keys = sorted(whole)
        shards = {"a.safetensors": keys[: len(keys) // 2], "b.safetensors": keys[len(keys) // 2 :]}
        for name, held in shards.items():
            save_file({key: whole[key] for key in held}, path.parent / name, metadata={"format": "pt"})
        weight_map = {key: name for name, held in shards.items() for key in held}
        index = path.with_name(f"{path.name}.index.json")
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        loading.load(resolve(str(tmp_path / "model")), "bf16", "cpu")

        held = shards["b.safetensors"][1:]
        save_file({key: whole[key] for key in held}, path.parent / "b.safetensors", metadata={"format": "pt"})
        lost = shards["b.safetensors"][0]
        assert f"b.safetensors: lacks {lost}, which the index promises" in self.refused(tmp_path)
        del weight_map[lost]
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        assert f"{index}: lacks {lost};" in self.refused(tmp_path)

    def test_a_model_without_a_component(self, weights, tmp_path):
        import json

        path = weights("vae", lambda state: None).parents[1] / "model_index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"text_encoder_2": [None, None]}))
        assert f"{path}: names no text_encoder_2" in self.refused(tmp_path)


class TestRandomFlux:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setitem(randomflux.ARCHITECTURES, "flux-dev", tinyflux.architecture())

    def test_it_runs_from_a_prompt_and_is_the_same_for_the_seed(self):
        import torch

        def picture():
            pipe = loading.load(resolve("flux-dev@random"), "bf16", "cpu")
            assert all(parameter.dtype is torch.bfloat16 for parameter in pipe.transformer.parameters())
            generator = torch.Generator().manual_seed(0)
            return pipe(
                "a cat on a mat", num_inference_steps=2, height=64, width=64, generator=generator, output_type="np"
            ).images

        state = torch.random.get_rng_state()
        first = picture()
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.get_default_dtype() is torch.float32
        assert first.shape == (1, 64, 64, 3)
        assert np.isfinite(first).all()
        assert first.std() > 0
        torch.manual_seed(1234)
        np.testing.assert_array_equal(first, picture())

    def test_the_pool_takes_it(self):
        from pytest_fluxperf.pipelines.pool import Pool
        from pytest_fluxperf.recipe import parse

        pool = Pool(resolve("flux-dev@random"), "cpu")
        prepared = pool.acquire(parse("fp32+fbcache:0.3,computed=2"), steps=4)
        prepared.begin()
        prepared.pipe("a cat", num_inference_steps=4, height=64, width=64)
        assert prepared.steps.decisions == "1010"
        pool.close()

    def test_a_word_is_about_a_token(self):
        tokenizer = randomflux.letter_tokenizer(77)
        ids = tokenizer("two green cats", padding="max_length", max_length=77, truncation=True).input_ids
        assert len(ids) == 77
        assert ids[3] == tokenizer.eos_token_id
        assert ids[:3] == [tokenizer.convert_tokens_to_ids(letter) for letter in "tgc"]
        assert len(tokenizer("")["input_ids"]) == 1


def test_the_published_sizes():
    """Counted on the meta device: 11.9 billion parameters in the transformer, 4.76 in T5-XXL's encoder."""
    import torch
    from diffusers import FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        transformer = FluxTransformer2DModel(**randomflux.FLUX_DEV.transformer)
        t5 = T5EncoderModel(T5Config(**randomflux.FLUX_DEV.t5))
    assert sum(p.numel() for p in transformer.parameters()) == 11_901_408_320
    assert sum(p.numel() for p in t5.parameters()) == 4_762_310_656
