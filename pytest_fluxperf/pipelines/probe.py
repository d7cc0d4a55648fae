"""What the transformer of a pipeline answers to fixed inputs, at a few points of the denoising path.

The same inputs go to a reference recipe's transformer and to a test's; how far their answers lie apart is a measure of
quality that needs no picture and works on any weights, random ones included. Each answer is the first step of a
generation of one step, made through the pipeline: caches have nothing to reuse, and packages that hook into the
pipeline's call find it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SIGMAS = (1.0, 0.5, 0.1)
"""Noise levels of the calls, before the scheduler's shift: the beginning, the middle and the end of a generation."""

_SEED = 20240801
_NEEDED = frozenset({"prompt_embeds", "pooled_prompt_embeds", "latents", "sigmas", "output_type", "guidance_scale"})


@dataclass(frozen=True)
class ProbeInputs:
    """Inputs of one generation, on the CPU in fp32."""

    latents: Any
    """(1, tokens, channels), standard normal."""
    prompt_embeds: Any
    pooled_prompt_embeds: Any
    height: int
    width: int
    guidance: float

    def perturb(self, dtype: Any) -> ProbeInputs:
        """Every number moved by up to one rounding of ``dtype`` (a torch dtype), up or down."""
        import torch

        step = torch.finfo(dtype).eps
        draw = np.random.RandomState(_SEED + 1)  # the one generator of numpy whose numbers never change

        def moved(tensor: Any) -> Any:
            rounding = torch.from_numpy(draw.uniform(-step, step, tuple(tensor.shape)).astype(np.float32))
            return tensor * (1 + rounding)

        return ProbeInputs(
            moved(self.latents),
            moved(self.prompt_embeds),
            moved(self.pooled_prompt_embeds),
            self.height,
            self.width,
            self.guidance,
        )


def cannot_probe(pipe: Any) -> str | None:
    """Why a pipeline takes no such inputs, or None."""
    missing = sorted(_NEEDED - inspect.signature(type(pipe).__call__).parameters.keys())
    return f"{type(pipe).__name__} takes no {missing[0]}" if missing else None


def probe_inputs(
    pipe: Any, prompt: str, *, height: int, width: int, guidance: float, max_sequence_length: int
) -> ProbeInputs:
    """The inputs for one prompt: its embeddings by ``pipe``'s encoders, latents that are the same everywhere."""
    import torch

    channels = pipe.transformer.config.in_channels
    scale = 2 * pipe.vae_scale_factor  # two by two latents are one token
    tokens = (height // scale) * (width // scale)
    draw = np.random.RandomState(_SEED)
    latents = torch.from_numpy(draw.standard_normal((1, tokens, channels)).astype(np.float32))
    with torch.no_grad():
        embeds, pooled, _ = pipe.encode_prompt(
            prompt=prompt,
            prompt_2=None,
            device=pipe.transformer.device,
            max_sequence_length=max_sequence_length,
        )
    return ProbeInputs(latents, embeds.float().cpu(), pooled.float().cpu(), height, width, guidance)


def answers(pipe: Any, inputs: ProbeInputs, begin: Callable[[], None]) -> list[np.ndarray[Any, Any]]:
    """What ``pipe``'s transformer answers at each of :data:`SIGMAS`, as flat float32 arrays; ``begin`` resets caches.

    The pipeline must be one that :func:`cannot_probe` has nothing against.
    """
    import torch

    transformer = pipe.transformer
    seen: list[Any] = []

    def keep(*arguments: Any) -> None:
        output = arguments[-1]
        seen.append(output[0] if isinstance(output, tuple) else output.sample)

    def there(tensor: Any) -> Any:
        return tensor.to(transformer.device, transformer.dtype)

    found = []
    hook = transformer.register_forward_hook(keep)
    try:
        for sigma in SIGMAS:
            begin()
            seen.clear()
            pipe(
                prompt_embeds=there(inputs.prompt_embeds),
                pooled_prompt_embeds=there(inputs.pooled_prompt_embeds),
                latents=there(inputs.latents),
                sigmas=[sigma],
                num_inference_steps=1,
                height=inputs.height,
                width=inputs.width,
                guidance_scale=inputs.guidance,
                output_type="latent",
            )
            found.append(seen[0].detach().to("cpu", torch.float32).numpy().ravel().copy())
    finally:
        hook.remove()
        begin()
    return found
