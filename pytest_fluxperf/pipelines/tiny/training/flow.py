"""Flow-matching training of transformer and text encoders, then distillation of guidance into its embedding.

The transformer learns the velocity ``noise - latents`` at ``x_t = (1 - t)·latents + t·noise`` (rectified flow, as
FLUX.1 does), captions dropped now and then. Then a student learns ``v(null) + g·(v(caption) - v(null))`` of the
frozen teacher with g told by the guidance embedding: ``guidance_scale`` works in one pass, as in FLUX.1-dev.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .architecture import MAX_TOKENS, Networks, encode_text, image_ids, pack, tokenize
from .schedule import Clock, cosine

CAPTION_DROPOUT = 0.1
TIMESTEP_SHIFT = 1.5
GUIDANCE = (1.0, 6.0)
"""Range of guidance scales that the distillation teaches."""
EMA_DECAY = 0.999


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
        self._networks = [networks]  # in a list, so that it is no submodule
        self._run: list[Any] = []

    def compile_transformer(self) -> None:
        """Run the transformer compiled from now on (the text encoders are too small to gain)."""
        self._run = [torch.compile(self.transformer, dynamic=False)]

    def forward(self, noisy: Tensor, t: Tensor, guidance: Tensor, clip_ids: Tensor, t5_ids: Tensor) -> Tensor:
        """Velocity (N, 256, 64)."""
        pooled = self.clip(clip_ids).pooler_output
        sequence = self.t5(t5_ids)[0]
        return self.velocity(noisy, t, guidance, pooled, sequence)

    def velocity(self, noisy: Tensor, t: Tensor, guidance: Tensor, pooled: Tensor, sequence: Tensor) -> Tensor:
        """Velocity from text that is encoded already."""
        run = self._run[0] if self._run else self.transformer
        out: Tensor = run(
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


def null_ids(networks: Networks, device: str) -> tuple[Tensor, Tensor]:
    """Token ids of the empty caption, (1, MAX_TOKENS) each."""
    return tuple(tokenize(t, [""]).to(device) for t in (networks.clip_tokenizer, networks.t5_tokenizer))  # type: ignore[return-value]


def timesteps(size: int, generator: torch.Generator, device: str) -> Tensor:
    """Logit-normal times in (0, 1), shifted towards noise (Esser et al. 2024, arXiv 2403.03206)."""
    t = torch.sigmoid(torch.randn(size, generator=generator, device=device))
    return TIMESTEP_SHIFT * t / (1 + (TIMESTEP_SHIFT - 1) * t)


class Trainer:
    """State of one stage: model, its moving average, optimizer; saved and restored as a whole."""

    def __init__(self, model: Denoiser, parameters: list[nn.Parameter], rate: float, seed: int, device: str) -> None:
        self.model = model
        self.device = device
        self.parameters = parameters
        self.rate = rate
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def update(self, loss: Tensor, progress: float) -> None:
        """One optimizer step, and the moving average after it."""
        self.optimizer.param_groups[0]["lr"] = self.rate * cosine(progress, warmup=0.02)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        # a short memory at first, so that the average is not one of the initialization
        decay = min(EMA_DECAY, 1 - 1 / (10 + progress * 1e5))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

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


def pretrain(trainer: Trainer, data: Dataset, *, clock: Clock, batch: int) -> None:
    """Flow matching, until the clock says stop."""
    model, device, generator = trainer.model, trainer.device, trainer.generator
    model.train()
    empty_clip, empty_t5 = null_ids(model._networks[0], device)
    guidance = torch.ones(batch, device=device)

    while clock.running():
        x, clip_ids, t5_ids = data.batch(batch, generator)
        drop = torch.rand(batch, 1, generator=generator, device=device) < CAPTION_DROPOUT
        clip_ids, t5_ids = torch.where(drop, empty_clip, clip_ids), torch.where(drop, empty_t5, t5_ids)
        noise = torch.randn(x.shape, generator=generator, device=device)
        t = timesteps(batch, generator, device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            predicted = model(torch.lerp(x, noise, t[:, None, None]), t, guidance, clip_ids, t5_ids)
        loss = (predicted.float() - (noise - x)).square().mean()
        trainer.update(loss, clock.progress)
        clock.tick(loss)


def distil(trainer: Trainer, teacher: Denoiser, data: Dataset, *, clock: Clock, batch: int) -> None:
    """Teach the guidance embedding what classifier-free guidance of the teacher does, until the clock says stop."""
    model, device, generator = trainer.model, trainer.device, trainer.generator
    model.train()
    networks = model._networks[0]
    empty_clip, empty_t5 = null_ids(networks, device)
    ones = torch.ones(2 * batch, device=device)
    low, high = GUIDANCE
    while clock.running():
        x, clip_ids, t5_ids = data.batch(batch, generator)
        noise = torch.randn(x.shape, generator=generator, device=device)
        t = timesteps(batch, generator, device)
        g = low + (high - low) * torch.rand(batch, generator=generator, device=device)
        noisy = torch.lerp(x, noise, t[:, None, None])
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            with torch.no_grad():
                pooled, sequence = encode_text(networks, clip_ids, t5_ids)
                null_pooled, null_sequence = encode_text(networks, empty_clip, empty_t5)
                both = teacher.velocity(
                    torch.cat([noisy, noisy]),
                    torch.cat([t, t]),
                    ones,
                    torch.cat([pooled, null_pooled.expand_as(pooled)]),
                    torch.cat([sequence, null_sequence.expand_as(sequence)]),
                )
                with_caption, without = both.float().chunk(2)
                wanted = without + g[:, None, None] * (with_caption - without)
            predicted = model.velocity(noisy, t, g, pooled, sequence)
        loss = (predicted.float() - wanted).square().mean()
        trainer.update(loss, clock.progress)
        clock.tick(loss)
