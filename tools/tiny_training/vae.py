"""Training of the VAE: L1 and squared error with a slight KL term, on scenes drawn on the fly."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from . import scenes
from .render import encode, render
from .schedule import Clock, cosine

KL_WEIGHT = 1e-6


def layouts(seed: int) -> Iterator[scenes.Layout]:
    """Endless random layouts of training scenes."""
    rng = random.Random(seed)
    for scene in scenes.samples(seed, held_out=False):
        yield scenes.lay_out(scene, rng)


def rows_of(seed: int, count: int) -> Tensor:
    """Encoded layouts (count, 23) of one seed."""
    return encode(list(itertools.islice(layouts(seed), count)))


def held_out_rows(count: int) -> Tensor:
    """Encoded layouts of held-out scenes."""
    rng = random.Random(0)
    return encode([scenes.lay_out(scene, rng) for scene in scenes.held_out_scenes(count)])


def loss_of(vae: Any, pictures: Tensor) -> Tensor:
    """Mean loss of a batch of pictures (N, 3, H, W) in [-1, 1]."""
    posterior = vae.encode(pictures).latent_dist
    decoded = vae.decode(posterior.sample(), return_dict=False)[0]
    difference = decoded.float() - pictures
    loss: Tensor = difference.abs().mean() + 0.5 * difference.square().mean() + KL_WEIGHT * posterior.kl().mean()
    return loss


def train(vae: Any, rows: Tensor, *, clock: Clock, batch: int, rate: float, device: str, compiled: bool) -> None:
    """Train in place until the clock says stop; ``rows`` are encoded layouts that batches are drawn from."""
    vae.to(device).train()
    rows = rows.to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    step = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    generator = torch.Generator(device=device).manual_seed(0)
    while clock.running():
        optimizer.param_groups[0]["lr"] = rate * cosine(clock.progress, warmup=0.03)
        chosen = torch.randint(len(rows), (batch,), generator=generator, device=device)
        pictures = render(rows[chosen]) * 2 - 1
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            loss = step(vae, pictures)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        clock.tick(loss)
    vae.eval()


@torch.no_grad()
def reconstruct(vae: Any, rows: Tensor, device: str, batch: int = 64) -> tuple[float, Tensor]:
    """Reconstructions from the posterior's mode, (N, 3, H, W) in [0, 1], after their mean PSNR in dB; in float32."""
    values, reconstructions = [], []
    for part in rows.split(batch):
        pictures = render(part.to(device))
        posterior = vae.encode(pictures * 2 - 1).latent_dist
        decoded = vae.decode(posterior.mode(), return_dict=False)[0].clamp(-1, 1) / 2 + 0.5
        values.append(-10 * (decoded - pictures).square().mean(dim=(1, 2, 3)).log10())
        reconstructions.append(decoded.cpu())
    return float(torch.cat(values).mean()), torch.cat(reconstructions)


@torch.no_grad()
def encode_all(vae: Any, rows: Tensor, device: str, batch: int = 256) -> Tensor:
    """Latents (N, 16, 32, 32) of the posterior's mode, in bfloat16 on the device."""
    parts = []
    for part in rows.split(batch):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            parts.append(vae.encode(render(part.to(device)) * 2 - 1).latent_dist.mode().to(torch.bfloat16))
    return torch.cat(parts)


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Pictures (N, 3, 256, 256) in [0, 1] of normalized latents."""
    scaled = latents / vae.config.scaling_factor + vae.config.shift_factor
    pictures: Tensor = vae.decode(scaled, return_dict=False)[0].float()
    return (pictures / 2 + 0.5).clamp(0, 1)


def normalize(vae: Any, latents: Tensor) -> Tensor:
    """Set the VAE's shift and scaling factor so that latents have mean 0 and deviation 1; return them so."""
    sample = latents[:4096].float()
    shift, scale = float(sample.mean()), 1 / float(sample.std())
    vae.register_to_config(shift_factor=round(shift, 6), scaling_factor=round(scale, 6))
    return (latents - shift) * scale
