"""Fitting TeaCache's polynomial to a Flux model.

TeaCache estimates how much the blocks' residual output changes between two steps from how much the first block's
modulated input changed. Both changes are relative L1 distances to the step before, mean |x_t − x_{t−1}| over
mean |x_{t−1}|. The coefficients belong to the weights: run whole generations, no step reused, collect the pairs of
all consecutive steps, and fit the second to the first by least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.optimizations.teacache import relative_l1, signal


@dataclass(frozen=True)
class Fit:
    """A fitted polynomial, highest power first, and what it was fitted to."""

    coefficients: tuple[float, ...]
    pairs: tuple[tuple[float, float], ...]
    """Change of the signal and change of the output, one pair for every two consecutive steps."""
    r_squared: float
    """Share of the output changes' variance that the polynomial explains."""


def fit_coefficients(
    pipe: Any,
    prompts: Sequence[str],
    *,
    steps: int = 28,
    guidance: float = 3.5,
    height: int | None = None,
    width: int | None = None,
    max_sequence_length: int = 512,
    seeds: Sequence[int] = (0,),
    degree: int = 4,
    **arguments: Any,
) -> Fit:
    """Fit TeaCache's coefficients for the weights of ``pipe``, a FluxPipeline without any cache.

    Generates every prompt with every seed (CPU generators) at ``steps`` steps; ``arguments`` go to the pipeline.
    Raises :class:`FluxPerfError` when the changes are too few to determine the polynomial, or not finite.
    """
    import torch

    pairs: list[tuple[float, float]] = []
    for prompt in prompts:
        for seed in seeds:
            with _Observer(pipe.transformer) as seen:
                pipe(
                    prompt,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    height=height,
                    width=width,
                    max_sequence_length=max_sequence_length,
                    generator=torch.Generator().manual_seed(seed),
                    output_type="latent",
                    **arguments,
                )
            pairs += seen.pairs
    return fit(pairs, degree)


def fit(pairs: Sequence[tuple[float, float]], degree: int = 4) -> Fit:
    """Least-squares polynomial through pairs of (change of the signal, change of the output)."""
    import numpy as np

    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    if len(np.unique(x)) <= degree:
        raise FluxPerfError(
            f"{len(np.unique(x))} different changes cannot determine a polynomial of degree {degree}: "
            "calibrate with more steps, prompts or seeds"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise FluxPerfError("the model's activations are not finite; nothing can be fitted to them")
    # Fitted on x scaled to [0, 1]: the raw powers of small changes are too ill-conditioned for least squares.
    scale = float(np.abs(x).max()) or 1.0
    coefficients = np.polyfit(x / scale, y, degree) / scale ** np.arange(degree, -1, -1)
    unexplained = y - np.polyval(coefficients, x)
    variance = float(((y - y.mean()) ** 2).sum())
    r_squared = 1.0 - float((unexplained**2).sum()) / variance if variance else 1.0
    return Fit(tuple(map(float, coefficients)), tuple((float(a), float(b)) for a, b in pairs), r_squared)


class _Observer:
    """Watches a transformer's first and last block through one generation."""

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer
        self._handles: list[Any] = []
        self._signal: Any = None
        self._entry: Any = None
        self._residual: Any = None
        self._change: float | None = None
        self.pairs: list[tuple[float, float]] = []

    def __enter__(self) -> _Observer:
        first, last = self._transformer.transformer_blocks[0], self._transformer.single_transformer_blocks[-1]
        self._handles = [
            first.register_forward_pre_hook(self._before_first, with_kwargs=True),
            last.register_forward_hook(self._after_last),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before_first(self, block: Any, _: Any, kwargs: dict[str, Any]) -> None:
        now = signal(block, kwargs["hidden_states"], kwargs["temb"])
        self._change = None if self._signal is None else relative_l1(now, self._signal)
        self._signal, self._entry = now, kwargs["hidden_states"]

    def _after_last(self, _block: Any, _inputs: Any, output: Any) -> None:
        residual = output[1] - self._entry
        if self._change is not None:
            self.pairs.append((self._change, relative_l1(residual, self._residual)))
        self._residual = residual
