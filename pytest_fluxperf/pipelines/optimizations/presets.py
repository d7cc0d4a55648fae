"""Whole recipes: ``fastest`` and ``fastest_lossless``, one name for the best known on a family of GPUs.

The table is the place to record what was measured; a family without figures of its own gets what ought to work
there. ``fastest_lossless`` has no step cache and no quantization. CPUs compute in fp32: one without bf16
instructions takes 50 times as long in bf16.
"""

from __future__ import annotations

from pytest_fluxperf.pipelines.optimizations.base import cuda_capability
from pytest_fluxperf.pipelines.optimizations.stepcache import COMPUTED
from pytest_fluxperf.recipe import Recipe, TokenSpec, parse, register

FASTEST = {
    "hopper": "bf16+cudnn+fbcache:0.2+fp8+compile:tuned",
    "blackwell": "bf16+cudnn+fbcache:0.2+fp8+compile",
    "ada": "bf16+fbcache:0.2+fp8+compile",
    "ampere": "bf16+fbcache:0.2+compile",
    "cpu": "fp32+fbcache:0.2+compile",
}
"""What ``fastest`` is on each family of devices. Hopper's was measured on an H100 (docs/recipes.md): of the recipes
measured there whose times differ by less than the gate can tell, the one that needs no fitted coefficients. The others
have no figures of ours."""

FASTEST_LOSSLESS = {
    "hopper": "bf16+cudnn+compile:tuned",
    "blackwell": "bf16+cudnn+compile",
    "ada": "bf16+compile",
    "ampere": "bf16+compile",
    "cpu": "fp32+compile",
}
"""What ``fastest_lossless`` is: dense and without quantization, likewise."""

_TABLES = {"fastest": FASTEST, "fastest_lossless": FASTEST_LOSSLESS}

for _name, _summary, _options in (
    ("fastest", "the fastest recipe known for this family of GPUs", (COMPUTED,)),
    ("fastest_lossless", "the fastest one without step cache and quantization", ()),
):
    register(TokenSpec(_name, "whole", _summary, options=_options, lossless=_TABLES[_name] is FASTEST_LOSSLESS))


def family(device: str) -> str:
    """Family of the device, a key of :data:`FASTEST`, by compute capability (below 8.0 counts as ``ampere``)."""
    capability = cuda_capability(device)
    if capability is None:
        return "cpu"
    major, minor = capability
    if major >= 10:
        return "blackwell"
    if major == 9:
        return "hopper"
    return "ada" if (major, minor) >= (8, 9) else "ampere"


def expand(recipe: Recipe, device: str) -> Recipe:
    """The recipe itself, or what its whole recipe stands for on ``device`` (``cpu``, ``cuda``, ``cuda:1``)."""
    whole = recipe.token("whole")
    if whole is None:
        return recipe
    text = _TABLES[whole.name][family(device)]
    computed = whole.option(COMPUTED.name)
    if computed is None:
        return parse(text)
    parts = [f"{part},{COMPUTED.name}={computed}" if part.startswith("fbcache:") else part for part in text.split("+")]
    return parse("+".join(parts))
