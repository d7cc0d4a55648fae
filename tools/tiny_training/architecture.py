"""The networks: FLUX.1's classes from diffusers and transformers, at a size that ships and runs on two cores.

| part | size | parameters |
|---|---|---|
| transformer | 2 double and 4 single blocks, 4 heads × 64, RoPE axes (16, 24, 24), guidance embedding | 9.3 M |
| VAE | 16 latent channels, factor 8, (32, 48, 64, 80) channels, one layer a block | 1.6 M |
| T5 encoder | 3 layers × 256 | 1.2 M |
| CLIP text encoder | 2 layers × 128 | 0.3 M |
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import scenes

MAX_TOKENS = 32
"""Text is padded to this many tokens in training; ``max_sequence_length`` of the pipeline should say the same."""

LATENT_CHANNELS = 16
FACTOR = 8
SIDE = scenes.CANVAS // FACTOR


@dataclass
class Networks:
    """All that is trained: AutoencoderKL, FluxTransformer2DModel, CLIPTextModel, T5EncoderModel, and two tokenizers."""

    vae: Any
    transformer: Any
    clip: Any
    t5: Any
    clip_tokenizer: Any
    t5_tokenizer: Any


def build(seed: int = 0) -> Networks:
    """Freshly initialized networks, the same for the same seed."""
    torch.manual_seed(seed)
    clip_tokenizer, t5_tokenizer = tokenizers()
    vae, transformer = _vae(), _transformer()
    t5, clip = _t5(t5_tokenizer), _clip(clip_tokenizer)  # in the order of the trained weights' random numbers
    return Networks(vae, transformer, clip, t5, clip_tokenizer, t5_tokenizer)


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 48, 64, 80),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=16,
        sample_size=scenes.CANVAS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def _transformer() -> Any:
    """Its blocks begin as the identity (their gates at zero), as diffusion transformers train best."""
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=64,
        num_attention_heads=4,
        joint_attention_dim=256,
        pooled_projection_dim=128,
        guidance_embeds=True,
        axes_dims_rope=(16, 24, 24),
    )
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        for name in ("norm", "norm1", "norm1_context"):
            if hasattr(block, name):
                nn.init.zeros_(getattr(block, name).linear.weight)
                nn.init.zeros_(getattr(block, name).linear.bias)
    nn.init.zeros_(transformer.norm_out.linear.weight)
    nn.init.zeros_(transformer.proj_out.weight)
    return transformer


def _t5(tokenizer: Any) -> Any:
    from transformers import T5Config, T5EncoderModel

    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=256,
            d_kv=64,
            d_ff=128,
            num_layers=3,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    _give_sides(t5)
    return t5


def _clip(tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            projection_dim=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


@torch.no_grad()
def _give_sides(t5: Any) -> None:
    """Let T5's heads begin with a side each: near before, near after, all before, all after a word.

    Its only sense of order is a learned bias by distance, and one that begins at zero takes thousands of steps to grow
    to the few units that matter. Near is one unit of logit a word, a slope as in ALiBi (Press et al. 2021, arXiv
    2108.12409).
    """
    bias = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight  # (32 buckets, heads)
    half = len(bias) // 2  # T5 counts distances to words before in the first half, after in the second
    distance = torch.arange(half, dtype=bias.dtype)
    other_side = torch.full((half,), -8.0)
    near, far = -distance, torch.zeros(half)
    before_after = ((near, other_side), (other_side, near), (far, other_side), (other_side, far))
    bias.copy_(torch.stack([torch.cat(sides) for sides in before_after], dim=1))


def words() -> list[str]:
    """Every word of the scene grammar, sorted."""
    vocabulary = itertools.chain(
        scenes.SIZES, scenes.SHAPES, scenes.COLORS, scenes.PATTERNS, scenes.BACKGROUNDS, scenes.RELATIONS,
        scenes.ROWS, scenes.PLACES, ("a an on and background",),
    )  # fmt: skip
    return sorted({word for phrase in vocabulary for word in phrase.split()})


def tokenizers() -> tuple[Any, Any]:
    """CLIP's and T5's tokenizer, byte-level BPE trained on captions by the `tokenizers` library.

    Words of the grammar become one token each; any other text is spelled in bytes, so no prompt is refused.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    corpus = [" ".join(words())] * 8

    def train(special: list[str], end: str, template: str) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=2000,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(corpus, trainer)
        # The end token comes last: CLIPTextModel pools at the highest id in the way of the original CLIP, and wherever
        # eos_token_id is in the way of later models, unless that is 2.
        tokenizer.add_special_tokens([end])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in (*special, end)]
        )
        return tokenizer

    clip = PreTrainedTokenizerFast(
        tokenizer_object=train(["<pad>", "<start>"], "<end>", "<start> $A <end>"),
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        model_max_length=MAX_TOKENS,
    )
    t5 = PreTrainedTokenizerFast(
        tokenizer_object=train(["<pad>"], "</s>", "$A </s>"),
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=512,
    )
    return clip, t5


def tokenize(tokenizer: Any, captions: list[str]) -> Tensor:
    """Token ids (N, MAX_TOKENS), padded as the pipeline pads them."""
    encoded = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids


def pack(latents: Tensor) -> Tensor:
    """(N, C, H, W) → (N, H/2 · W/2, 4C): 2×2 latents a token, in FluxPipeline's order."""
    n, c, h, w = latents.shape
    return latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpack(tokens: Tensor) -> Tensor:
    """The inverse of :func:`pack` for square pictures."""
    n, count, channels = tokens.shape
    side = int(count**0.5)
    return tokens.view(n, side, side, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, -1, 2 * side, 2 * side)


def image_ids(device: torch.device | str, side: int = SIDE // 2) -> Tensor:
    """RoPE positions (side², 3) of the picture's tokens."""
    ids = torch.zeros(side, side, 3)
    ids[..., 1] += torch.arange(side)[:, None]
    ids[..., 2] += torch.arange(side)[None, :]
    return ids.reshape(-1, 3).to(device)
