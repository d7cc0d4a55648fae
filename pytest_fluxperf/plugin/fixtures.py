"""Fixtures: pipelines under a recipe, and the inputs of the current generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from pytest_fluxperf.plugin.collect import bench_of, session_of
from pytest_fluxperf.plugin.stash import preparing


@pytest.fixture
def flux(request: pytest.FixtureRequest) -> Iterator[Any]:
    """FLUX pipeline under the recipe of indirect parametrization, the marker's ``recipe=``, or the plain dtype.

    Example: ``@pytest.mark.parametrize("flux", ["bf16", "bf16+fbcache:0.3"], indirect=True)``.
    """
    yield from _pipeline(request, getattr(request, "param", None))


@pytest.fixture
def flux_inputs(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    """Keyword arguments of the current generation, for ``flux(**flux_inputs)``.

    prompt, generator, height, width, num_inference_steps, guidance_scale and max_sequence_length; the plugin changes
    them between calls of the test.
    """
    with preparing(request.config):
        inputs: Mapping[str, Any] = bench_of(request).inputs
    return inputs


@pytest.fixture(scope="session")
def gpu(request: pytest.FixtureRequest) -> str:
    """Name of the hardware that is gated on, as baselines are filed: ``h100``, ``cpu``, ..."""
    with preparing(request.config):
        name: str = session_of(request.config).gpu.name
    return name


def asks_for_pipeline(item: pytest.Item) -> bool:
    """Whether a test uses a pipeline of ours: a fixture of this module, not a project's own of the same name."""
    definitions: Mapping[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    return any(
        name not in ("flux_inputs", "gpu") and getattr(used.func, "__module__", None) == __name__
        for name, (*_, used) in definitions.items()
    )


def _pipeline(request: pytest.FixtureRequest, recipe: str | None) -> Iterator[Any]:
    from pytest_fluxperf.plugin.progress import Live

    bench = bench_of(request)
    live = Live(request.node)
    with preparing(request.config):
        try:
            pipe = bench.prepare(recipe, live.show)
        finally:
            live.clear()
    try:
        yield pipe
    finally:
        bench.release()


def _named(recipe: str) -> Callable[..., Iterator[Any]]:
    def pipeline(request: pytest.FixtureRequest) -> Iterator[Any]:
        yield from _pipeline(request, recipe)

    pipeline.__doc__ = f"FLUX pipeline under the recipe ``{recipe}`` (in the device's usual dtype if it names none)."
    decorated: Callable[..., Iterator[Any]] = pytest.fixture(pipeline)
    return decorated


flux_fp32 = _named("fp32")
flux_bf16 = _named("bf16")
flux_fp16 = _named("fp16")
flux_fa2 = _named("fa2")
flux_fbcache = _named("fbcache:0.3")
flux_teacache = _named("teacache:0.4")
flux_fora = _named("fora:start=2,interval=2")
flux_fp8 = _named("fp8")
flux_int8 = _named("int8wo")
flux_compile = _named("compile")
flux_fastest = _named("fastest")
