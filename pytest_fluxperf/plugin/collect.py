"""From pytest's items and configuration to a test's bench and the process's session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.plugin.stash import BENCH, RUN, SESSION, SETTINGS, is_worker, preparing, run_name

if TYPE_CHECKING:
    from pytest_fluxperf.bench.bench import Bench
    from pytest_fluxperf.bench.run import Origin, Run
    from pytest_fluxperf.bench.session import Session


def session_of(config: pytest.Config) -> Session:
    """The process's session, made with the run that it may have to report when it is first needed."""
    if SESSION not in config.stash:
        from pytest_fluxperf.bench.run import Run
        from pytest_fluxperf.bench.session import Session

        hook = config.hook
        _asked(config, "pytest_fluxperf_register_optimizations")
        config.stash[SESSION] = Session(
            config.stash[SETTINGS],
            run=run_name(config),
            worker=config.workerinput["workerid"] if is_worker(config) else "",  # type: ignore[attr-defined]
            prompt_sets=_gathered(config, "pytest_fluxperf_prompt_sets", "a non-empty list of strings", _is_prompts),
            models=_gathered(config, "pytest_fluxperf_models", "a folder or hub id", _is_text),
            own_metrics=_gathered(config, "pytest_fluxperf_metrics", "a PictureMetric", callable),
            on_pipeline=lambda pipe, recipe: hook.pytest_fluxperf_pipeline(pipe=pipe, recipe=recipe, config=config),
            is_failure=_is_failure,
        )
        config.stash[RUN] = Run(run_name(config), lambda: _origin(config))
    return config.stash[SESSION]


def run_of(config: pytest.Config) -> Run:
    """The run that this process reports."""
    session_of(config)
    return config.stash[RUN]


def _origin(config: pytest.Config) -> Origin:
    """What the run is of; raises :class:`FluxPerfError` for a device or model that is not there."""
    from pytest_fluxperf.bench.run import Origin

    session = session_of(config)
    return Origin(
        gpu=session.gpu.name,
        hardware=session.hardware,
        command=("pytest", *map(str, config.invocation_params.args)),
        baselines=session.settings.baselines,
        mode="relative" if session.relative else "absolute",
        strict=session.settings.strict,
        update=session.settings.update,
        caveats=tuple(session.info.caveats),
        model=str(session.info.source),
        random=session.random,
    )


def _is_failure(error: BaseException) -> bool:
    # pytest's own are no Exceptions; skip, xfail and exit are not for us to judge
    failed = isinstance(error, pytest.fail.Exception) and not isinstance(error, pytest.xfail.Exception)
    return failed or isinstance(error, Exception | SystemExit)


def _asked(config: pytest.Config, name: str) -> list[Any]:
    """What a project's hooks of that name answer; FluxPerfError where one raises."""
    try:
        return list(getattr(config.hook, name)(config=config))
    except FluxPerfError:
        raise
    except Exception as error:
        raise FluxPerfError(f"{name}: {type(error).__name__}: {error}") from error


def _gathered(config: pytest.Config, name: str, kind: str, fits: Callable[[Any], bool]) -> dict[str, Any]:
    """What all hooks of that name answer by name, the first registered last, so that it counts."""
    found: dict[str, Any] = {}
    for answer in reversed(_asked(config, name)):
        if not isinstance(answer, Mapping):
            raise FluxPerfError(f"{name}: must return a mapping of names, not {answer!r:.100}")
        for key, value in answer.items():
            if not isinstance(key, str) or not fits(value):
                raise FluxPerfError(f"{name}: {key!r} must be {kind}, not {value!r:.100}")
            found[key] = value
    return found


def _is_prompts(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(text, str) for text in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def make_bench(item: pytest.Item) -> Bench:
    """The item's bench with settings and recipe checked; raises :class:`FluxPerfError`."""
    import unittest

    from pytest_fluxperf.bench.bench import Bench
    from pytest_fluxperf.settings import item_settings

    if issubclass(getattr(item, "cls", None) or object, unittest.TestCase):
        raise FluxPerfError(
            "unittest calls the methods of a TestCase itself, so nothing would be measured",
            remedy="write a function, or a method of a plain class",
            test=item.nodeid,
        )
    session = session_of(item.config)
    settings = item_settings(session.settings, list(item.iter_markers("fluxperf")), item.nodeid)
    params = item.callspec.params if hasattr(item, "callspec") else {}
    recipe = params.get("flux", settings.recipe)
    if recipe is not None:
        if not isinstance(recipe, str):
            raise FluxPerfError(f"a recipe is a string such as 'bf16+fbcache:0.3', not {recipe!r}", test=item.nodeid)
        if "flux" in params and not _indirect(item):
            raise FluxPerfError(
                f"flux is parametrized directly: the test would get the text {recipe!r}, no pipeline",
                remedy="add indirect=True",
                test=item.nodeid,
            )
        session.gpu  # noqa: B018 (a device that is not there is no fault of the test)
        try:
            recipe = session.recipe(recipe, settings.steps)
        except FluxPerfError as error:
            raise error.at(test=item.nodeid) from None
    bench = Bench(session, item.nodeid, settings, recipe)
    item.stash[BENCH] = bench
    return bench


def _indirect(item: pytest.Item) -> bool:
    """Whether the parameter ``flux`` goes to a fixture, of ours or of the project, and not straight to the test."""
    fixture = item._fixtureinfo.name2fixturedefs["flux"][-1]  # type: ignore[attr-defined]
    return not getattr(fixture.func, "__module__", "").startswith("_pytest.")


def bench_of(request: pytest.FixtureRequest) -> Bench:
    """The bench of the test that requests a fixture (also of one without the marker)."""
    item = request.node
    if BENCH not in item.stash:
        with preparing(item.config):
            make_bench(item)
    bench: Bench = item.stash[BENCH]
    return bench
