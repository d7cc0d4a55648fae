"""FLUX.1's exact architecture with seeded random weights, built on the device in seconds.

Latency, memory and kernels are those of the real model; pictures are noise. The sizes are the published
configurations of FLUX.1-dev and FLUX.1-schnell, of CLIP-L and of T5-XXL's encoder. The tokenizers make about one
token of a word, and prompts are padded to the same lengths as with the real ones, so text encoding costs the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SEED = 0


@dataclass(frozen=True)
class Architecture:
    """Arguments of the components' constructors; the defaults are FLUX.1-dev."""

    transformer: dict[str, Any] = field(
        default_factory=lambda: {
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
            "axes_dims_rope": (16, 56, 56),
        }
    )
    vae: dict[str, Any] = field(
        default_factory=lambda: {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": 16,
            "norm_num_groups": 32,
            "sample_size": 1024,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        }
    )
    clip: dict[str, Any] = field(
        default_factory=lambda: {
            "vocab_size": 49408,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "projection_dim": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 77,
        }
    )
    t5: dict[str, Any] = field(
        default_factory=lambda: {
            "vocab_size": 32128,
            "d_model": 4096,
            "d_kv": 64,
            "d_ff": 10240,
            "num_layers": 24,
            "num_heads": 64,
            "feed_forward_proj": "gated-gelu",
            "is_encoder_decoder": False,
            "use_cache": False,
        }
    )
    scheduler: dict[str, Any] = field(default_factory=lambda: {"shift": 3.0, "use_dynamic_shifting": True})


FLUX_DEV = Architecture()
FLUX_SCHNELL = dataclasses.replace(
    FLUX_DEV,
    transformer=FLUX_DEV.transformer | {"guidance_embeds": False},
    scheduler={"shift": 1.0, "use_dynamic_shifting": False},
)
ARCHITECTURES = {"flux-dev": FLUX_DEV, "flux-schnell": FLUX_SCHNELL}
"""By the names of :func:`pytest_fluxperf.pipelines.models.resolve`."""


def build(architecture: Architecture, dtype: Any, device: str) -> Any:
    """A FluxPipeline of that architecture in ``dtype`` (a torch dtype) on ``device``; the same for the same seed."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip_tokenizer = letter_tokenizer(architecture.clip["max_position_embeddings"])
    t5_tokenizer = letter_tokenizer(512)
    special = {
        "bos_token_id": clip_tokenizer.bos_token_id,
        "eos_token_id": clip_tokenizer.eos_token_id,
        "pad_token_id": clip_tokenizer.pad_token_id,
    }
    with _on(device, dtype):
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(**architecture.scheduler),
            vae=AutoencoderKL(**architecture.vae),
            text_encoder=CLIPTextModel(CLIPTextConfig(**architecture.clip, **special)),
            tokenizer=clip_tokenizer,
            text_encoder_2=T5EncoderModel(T5Config(**architecture.t5)),
            tokenizer_2=t5_tokenizer,
            transformer=FluxTransformer2DModel(**architecture.transformer),
        )


def letter_tokenizer(max_length: int) -> Any:
    """A tokenizer that needs no vocabulary file: of every word it keeps the first letter, as UTF-8 bytes.

    It ends every text with an end token, as CLIP's and T5's do.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "</s>", "<s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*specials, *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(Regex(r"(?<=\S)\S+"), "")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
        model_max_length=max_length,
    )


@contextmanager
def _on(device: str, dtype: Any) -> Iterator[None]:
    """Make new tensors on ``device`` in ``dtype``, with the seed; all of it is as before afterwards."""
    import torch

    default = torch.get_default_dtype()
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(SEED)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(default)
