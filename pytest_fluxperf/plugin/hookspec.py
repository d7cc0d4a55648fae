"""Hooks by which a conftest or another plugin extends pytest-fluxperf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_fluxperf.quality.custom_metrics import PictureMetric
    from pytest_fluxperf.results import Result


@pytest.hookspec
def pytest_fluxperf_register_optimizations(config: pytest.Config) -> None:
    """Register optimizations of one's own, once, before the first recipe is parsed.

    Example::

        def pytest_fluxperf_register_optimizations(config):
            import my_team.step_cache  # its module registers the token "mycache"
    """


@pytest.hookspec
def pytest_fluxperf_prompt_sets(config: pytest.Config) -> Mapping[str, Sequence[str]]:  # type: ignore[empty-body]
    """Return prompt sets by name, for ``fluxperf(prompts="catalogue")``.

    Example::

        def pytest_fluxperf_prompt_sets(config):
            return {"catalogue": ["a red mug on white", "a blue mug on white"]}
    """


@pytest.hookspec
def pytest_fluxperf_models(config: pytest.Config) -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return models by name, for ``--fluxperf-model our-flux``: a folder or hub id of a diffusers Flux pipeline.

    The name, not the place, is written into baselines, so they hold on every machine.

    Example::

        def pytest_fluxperf_models(config):
            return {"our-flux": "/models/our-flux-v3"}
    """


@pytest.hookspec
def pytest_fluxperf_metrics(config: pytest.Config) -> Mapping[str, PictureMetric]:  # type: ignore[empty-body]
    """Return image metrics of one's own by name; each is computed for every picture, stored and gated.

    Example::

        def pytest_fluxperf_metrics(config):
            from pytest_fluxperf import PictureMetric

            def brightness_error(picture, reference):
                return abs(picture.mean() - reference.mean())

            return {"brightness_error": PictureMetric(brightness_error, tolerance=0.01, higher_is_better=False)}
    """


@pytest.hookspec
def pytest_fluxperf_pipeline(pipe: Any, recipe: str, config: pytest.Config) -> None:
    """Called with every pipeline right after its recipe was applied, before it warms up.

    For what a team sets on each of its pipelines (a scheduler, a safety filter). What is changed here is not
    undone by the plugin, so it must not depend on the recipe.

    Example::

        def pytest_fluxperf_pipeline(pipe, recipe, config):
            pipe.scheduler = my_scheduler(pipe.scheduler.config)
    """


@pytest.hookspec
def pytest_fluxperf_result(item: pytest.Item, result: Result) -> None:
    """Called with every result as soon as it was judged (in the process that measured it).

    Example::

        def pytest_fluxperf_result(item, result):
            send_to_our_dashboard(item.nodeid, result.judgement.verdict)
    """
