"""TeaCache and FORA as plain loops over the transformer's parts, to compare the hooks with.

Written from the published algorithms, step by step and without hooks: TeaCache (arXiv 2411.19108, and the program
its authors give for FLUX), FORA (arXiv 2407.01425).
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import torch


class Reference:
    """Replaces ``transformer.forward`` by a loop that asks :meth:`compute` before the blocks."""

    def __init__(self, transformer: Any, num_steps: int) -> None:
        self.transformer = transformer
        self.num_steps = num_steps
        self.step = 0
        self.decisions = ""
        transformer.forward = types.MethodType(self.forward, transformer)

    def forward(
        self,
        transformer: Any,
        hidden_states: Any,
        encoder_hidden_states: Any,
        pooled_projections: Any,
        timestep: Any,
        img_ids: Any,
        txt_ids: Any,
        guidance: Any,
        joint_attention_kwargs: Any,
        return_dict: bool,
    ) -> Any:
        image = transformer.x_embedder(hidden_states)
        time = timestep.to(image.dtype) * 1000
        scale = guidance.to(image.dtype) * 1000
        temb = transformer.time_text_embed(time, scale, pooled_projections)
        text = transformer.context_embedder(encoder_hidden_states)
        rotary = transformer.pos_embed(torch.cat((txt_ids, img_ids), dim=0))
        image = self.blocks(image, text, temb, rotary)
        self.step = (self.step + 1) % self.num_steps
        return (transformer.proj_out(transformer.norm_out(image, temb)),)

    def blocks(self, image: Any, text: Any, temb: Any, rotary: Any) -> Any:
        entry = image
        compute = self.compute(image, temb)
        self.decisions += "1" if compute else "0"
        if not compute:
            return self.reuse(entry)
        for block in self.transformer.transformer_blocks:
            text, image = block(image, text, temb, rotary)
        for block in self.transformer.single_transformer_blocks:
            text, image = block(image, text, temb, rotary)
        self.store(entry, image)
        return image


class TeaCacheReference(Reference):
    def __init__(self, transformer: Any, num_steps: int, threshold: float, coefficients: Any) -> None:
        super().__init__(transformer, num_steps)
        self.threshold = threshold
        self.rescale = np.poly1d(coefficients)
        self.accumulated = 0
        self.previous = None
        self.residual = None

    def compute(self, image: Any, temb: Any) -> bool:
        modulated, *_ = self.transformer.transformer_blocks[0].norm1(image.clone(), emb=temb.clone())
        if self.step in (0, self.num_steps - 1):
            compute, self.accumulated = True, 0
        else:
            change = ((modulated - self.previous).abs().mean() / self.previous.abs().mean()).cpu().item()
            self.accumulated += self.rescale(change)
            compute = not self.accumulated < self.threshold
            if compute:
                self.accumulated = 0
        self.previous = modulated
        return compute

    def reuse(self, entry: Any) -> Any:
        return entry + self.residual

    def store(self, entry: Any, output: Any) -> None:
        self.residual = output - entry


class ForaReference(Reference):
    def __init__(self, transformer: Any, num_steps: int, start: int, interval: int) -> None:
        super().__init__(transformer, num_steps)
        self.start, self.interval = start, interval

    def compute(self, image: Any, temb: Any) -> bool:
        return self.step < self.start or (self.step - self.start) % self.interval == 0

    def reuse(self, entry: Any) -> Any:
        return self.output

    def store(self, entry: Any, output: Any) -> None:
        self.output = output
