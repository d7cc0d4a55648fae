"""Flow-matching training of transformer and text encoders, then distillation of guidance into its embedding.

The transformer learns the velocity ``noise - latents`` at ``x_t = (1 - t)·latents + t·noise`` (rectified flow, as
FLUX.1 does), captions dropped now and then. Then a student learns ``v(null) + g·(v(caption) - v(null))`` of the
frozen teacher with g told by the guidance embedding: ``guidance_scale`` works in one pass, as in FLUX.1-dev.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .architecture import MAX_TOKENS, Networks, image_ids, pack, tokenize, unpack
from .schedule import Clock, cosine

CAPTION_DROPOUT = 0.1
TIMESTEP_SHIFT = 2.0
TEXT_RATE = 0.1
"""Learning rate of the text encoders, which can read already, as a fraction of the transformer's."""
SAMPLING_SHIFT = 0.5
"""Logarithm of the shift of sigmas that FLUX.1-dev's scheduler takes for 256 tokens (its ``base_shift``)."""
GUIDANCE = (1.0, 6.0)
"""Range of guidance scales that the distillation teaches."""
EMA_DECAY = 0.999

Text = tuple[Tensor, Tensor]
"""Pooled CLIP embedding (N, 128) and T5 sequence (N, MAX_TOKENS, 256)."""


@dataclass
class Dataset:
    """Normalized latents (N, 16, 32, 32) and token ids (N, MAX_TOKENS), on the device."""

    latents: Tensor
    clip_ids: Tensor
    t5_ids: Tensor

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random packed latents (size, 256, 64) and token ids."""
        chosen = torch.randint(len(self.latents), (size,), generator=generator, device=self.latents.device)
        return pack(self.latents[chosen].float()), self.clip_ids[chosen], self.t5_ids[chosen]


class Denoiser(nn.Module):
    """Transformer and text encoders as one module."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.transformer, self.clip, self.t5 = networks.transformer, networks.clip, networks.t5
        self._tokenizers = (networks.clip_tokenizer, networks.t5_tokenizer)

    def forward(self, noisy: Tensor, t: Tensor, guidance: Tensor, clip_ids: Tensor, t5_ids: Tensor) -> Tensor:
        """Velocity (N, 256, 64)."""
        return self.velocity(noisy, t, guidance, *self.read(clip_ids, t5_ids))

    def read(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled CLIP embedding (N, 128) and T5 sequence (N, MAX_TOKENS, 256), computed as FluxPipeline does."""
        return self.clip(clip_ids).pooler_output, self.t5(t5_ids)[0]

    def velocity(self, noisy: Tensor, t: Tensor, guidance: Tensor, pooled: Tensor, sequence: Tensor) -> Tensor:
        """Velocity from text that is read already."""
        out: Tensor = self.transformer(
            hidden_states=noisy,
            timestep=t,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=sequence,
            txt_ids=torch.zeros(MAX_TOKENS, 3, device=noisy.device),
            img_ids=image_ids(noisy.device, int(noisy.shape[1] ** 0.5)),
            return_dict=False,
        )[0]
        return out

    def ids(self, captions: list[str], device: str) -> tuple[Tensor, Tensor]:
        """CLIP's and T5's token ids, (N, MAX_TOKENS) each."""
        clip, t5 = (tokenize(tokenizer, captions).to(device) for tokenizer in self._tokenizers)
        return clip, t5


def timesteps(size: int, generator: torch.Generator, device: str) -> Tensor:
    """Logit-normal times in (0, 1), shifted towards noise (Esser et al. 2024, arXiv 2403.03206)."""
    t = torch.sigmoid(torch.randn(size, generator=generator, device=device))
    return TIMESTEP_SHIFT * t / (1 + (TIMESTEP_SHIFT - 1) * t)


class Trainer:
    """State of one stage: model, its moving average, optimizer; saved and restored as a whole."""

    def __init__(self, model: Denoiser, *, rate: float, text_rate: float, seed: int, device: str) -> None:
        self.model = model
        self.device = device
        groups = [{"params": [*model.transformer.parameters()], "peak": rate}]
        if text_rate:
            groups.append({"params": [*model.clip.parameters(), *model.t5.parameters()], "peak": text_rate})
        self.parameters = [parameter for group in groups for parameter in group["params"]]  # type: ignore[attr-defined]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self._averaged: list[Tensor] = list(self.average.parameters())
        self._moving: list[Tensor] = list(model.parameters())
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def update(self, loss: Tensor, progress: float) -> None:
        """One optimizer step, and the moving average after it."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * cosine(progress, warmup=0.02)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        # a short memory at first, so that the average is not one of the initialization
        decay = min(EMA_DECAY, 1 - 1 / (10 + progress * 1e5))
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._moving, 1 - decay)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())


def pretrain(trainer: Trainer, data: Dataset, *, clock: Clock, batch: int, compiled: bool) -> None:
    """Flow matching, until the clock says stop."""
    model, device, generator = trainer.model, trainer.device, trainer.generator
    model.train()
    run = torch.compile(model, dynamic=False) if compiled else model
    empty_clip, empty_t5 = model.ids([""], device)
    guidance = torch.ones(batch, device=device)
    while clock.running():
        x, clip_ids, t5_ids = data.batch(batch, generator)
        drop = torch.rand(batch, 1, generator=generator, device=device) < CAPTION_DROPOUT
        clip_ids, t5_ids = torch.where(drop, empty_clip, clip_ids), torch.where(drop, empty_t5, t5_ids)
        noise = torch.randn(x.shape, generator=generator, device=device)
        t = timesteps(batch, generator, device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            predicted = run(torch.lerp(x, noise, t[:, None, None]), t, guidance, clip_ids, t5_ids)
        loss = (predicted.float() - (noise - x)).square().mean()
        trainer.update(loss, clock.progress)
        clock.tick(loss)


def guided(model: Denoiser, noisy: Tensor, t: Tensor, scale: Tensor, text: Text, null: Text) -> Tensor:
    """Velocity under classifier-free guidance by ``scale`` (N), of a model that has not learned to be told it."""
    both = model.velocity(
        torch.cat([noisy, noisy]),
        torch.cat([t, t]),
        torch.ones_like(torch.cat([t, t])),
        *(torch.cat([one, other.expand_as(one)]) for one, other in zip(text, null, strict=True)),
    )
    captioned, without = both.float().chunk(2)
    return without + scale[:, None, None] * (captioned - without)


def distil(trainer: Trainer, teacher: Denoiser, data: Dataset, *, clock: Clock, batch: int, compiled: bool) -> None:
    """Teach the guidance embedding what classifier-free guidance of the teacher does, until the clock says stop.

    The transformer alone learns; it shares its frozen text encoders with the teacher.
    """
    model, device, generator = trainer.model, trainer.device, trainer.generator
    model.train()
    ask = torch.compile(guided, dynamic=False) if compiled else guided
    run = torch.compile(Denoiser.velocity, dynamic=False) if compiled else Denoiser.velocity
    low, high = GUIDANCE
    with torch.no_grad():
        null = teacher.read(*model.ids([""], device))
    while clock.running():
        x, clip_ids, t5_ids = data.batch(batch, generator)
        noise = torch.randn(x.shape, generator=generator, device=device)
        t = timesteps(batch, generator, device)
        scale = low + (high - low) * torch.rand(batch, generator=generator, device=device)
        noisy = torch.lerp(x, noise, t[:, None, None])
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            with torch.no_grad():
                text = teacher.read(clip_ids, t5_ids)
                wanted = ask(teacher, noisy, t, scale, text, null)
            predicted = run(model, noisy, t, scale, *text)
        loss = (predicted.float() - wanted).square().mean()
        trainer.update(loss, clock.progress)
        clock.tick(loss)


@torch.no_grad()
def generate(model: Denoiser, captions: list[str], *, scale: float, told: bool, steps: int, device: str) -> Tensor:
    """Normalized latents (N, 16, 32, 32) of captions, by the pipeline's own schedule of sigmas.

    ``told`` says whether the model has learned to be told the guidance scale; otherwise it is applied.
    """
    text, null = (model.read(*model.ids(words, device)) for words in (captions, [""]))
    n = len(captions)
    noise = torch.randn(n, 16, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    x = pack(noise)
    sigmas = torch.cat([torch.linspace(1, 1 / steps, steps), torch.zeros(1)])
    shift = math.exp(SAMPLING_SHIFT)
    sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
    scales = torch.full((n,), scale, device=device)
    for now, then in itertools.pairwise(sigmas.tolist()):
        t = torch.full((n,), now, device=device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            velocity = model.velocity(x, t, scales, *text) if told else guided(model, x, t, scales, text, null)
        x = x + (then - now) * velocity.float()
    return unpack(x)
