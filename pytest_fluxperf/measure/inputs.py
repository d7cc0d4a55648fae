"""The keyword arguments of the current generation, which the runner changes between calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_fluxperf.results import Prompt, Workload


class GenerationInputs(Mapping[str, Any]):
    """A read-only mapping for ``pipe(**flux_inputs)``: prompt, generator, height, width, steps, guidance.

    The generator is a CPU generator seeded per prompt, so the initial latents are the same on any device.
    ``extra`` holds what the model asks for besides (``max_sequence_length``).
    """

    def __init__(self, workload: Workload, extra: Mapping[str, Any] | None = None) -> None:
        self._workload = workload
        self._extra = dict(extra or {})
        self._values: dict[str, Any] = {}
        self.load(workload.prompts[0])

    def load(self, prompt: Prompt) -> None:
        """Make this the generation to come, with a fresh generator."""
        import torch

        self._values = {
            "prompt": prompt.text,
            "generator": torch.Generator("cpu").manual_seed(prompt.seed),
            "height": self._workload.height,
            "width": self._workload.width,
            "num_inference_steps": self._workload.steps,
            "guidance_scale": self._workload.guidance,
            **self._extra,
        }

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"GenerationInputs({self._values!r})"
