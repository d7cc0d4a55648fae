"""The training set: random layouts and their captions, made on all cores."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from . import scenes, vae
from .architecture import Networks, tokenize
from .flow import Dataset
from .render import encode

SHARD = 4000
"""Scenes a seed; part of what the seed means."""


@dataclass
class Pictures:
    """Encoded layouts (N, 23), ready to be drawn, and their captions."""

    rows: Tensor
    captions: list[str]


def _shard(seed: int) -> tuple[Tensor, list[str]]:
    made = list(itertools.islice(vae.layouts(seed), SHARD))
    return encode(made), [scenes.caption(layout.scene) for layout in made]


def make(count: int) -> Pictures:
    """``count`` training scenes (rounded up to whole shards), the same every time."""
    seeds = range(1, 1 + -(-count // SHARD))
    if len(seeds) == 1:
        shards = [_shard(seeds[0])]
    else:  # spawned, since a fork of a process with torch's threads may hang
        with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
            shards = list(pool.map(_shard, seeds))
    return Pictures(torch.cat([rows for rows, _ in shards]), [c for _, captions in shards for c in captions])


def encode_pictures(networks: Networks, pictures: Pictures, device: str) -> Dataset:
    """Latents of all pictures by the trained VAE (which is given its scaling factors), and token ids."""
    latents = vae.normalize(networks.vae, vae.encode_all(networks.vae, pictures.rows, device))
    ids = [tokenize(t, pictures.captions).to(device) for t in (networks.clip_tokenizer, networks.t5_tokenizer)]
    return Dataset(latents.to(torch.bfloat16), *ids)
