"""pytest's hooks, wiring only. Nothing heavy is imported before a fluxperf test is about to run."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.plugin import collect, fixtures, hookspec, options, stash
from pytest_fluxperf.plugin.stash import BENCH, REFUSED, SESSION, SETTINGS

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

MARKER = (
    "fluxperf(recipe, prompts, seeds, size, steps, guidance, samples, warmup, max_slowdown, max_memory_growth, "
    "min_ssim, min_psnr, max_lpips, quality_tolerance, reference): the test makes one picture; it is called once per "
    "prompt and seed, timed, compared with a reference and gated against its baseline."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command line options and ini settings."""
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks that a conftest may implement."""
    pluginmanager.add_hookspecs(hookspec)


def pytest_configure(config: pytest.Config) -> None:
    """Register marker and fixtures, and check the settings before anything runs."""
    config.addinivalue_line("markers", MARKER)
    config.pluginmanager.register(fixtures, "fluxperf-fixtures")
    try:
        settings = config.stash[SETTINGS] = options.run_settings(config)
        if settings.old_python and not stash.is_worker(config):
            from pytest_fluxperf.ab.process import check_protocol, find_python

            check_protocol(find_python(settings.old_python))
    except FluxPerfError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(_Working() if stash.is_worker(config) else _Reporting(config), "fluxperf-session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check marker arguments and recipes of the collected tests."""
    for item in items:
        if item.get_closest_marker("fluxperf"):
            try:
                collect.make_bench(item)
            except FluxPerfError as error:
                stash.refuse(item.config, error)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Check device, model, prompts, baselines and folders before anything is measured."""
    benches = [item.stash[BENCH] for item in session.items if BENCH in item.stash]
    if benches and not session.config.option.collectonly:
        try:
            from pytest_fluxperf.bench import bench

            needs_model = any(fixtures.asks_for_pipeline(item) for item in session.items if BENCH in item.stash)
            bench.check(collect.session_of(session.config), benches, needs_model=needs_model)
            _defer_suspects(session.config)
            if not stash.is_worker(session.config):  # an end before the first report knows how many there were
                from pytest_fluxperf.plugin.reporting import envelope

                collect.run_of(session.config).receive(envelope(session.config))
        except FluxPerfError as error:
            stash.refuse(session.config, error)


def _defer_suspects(config: pytest.Config) -> None:
    """Let suspects be decided after the last test: in every session by a second look, then by the old environment."""
    from pytest_fluxperf.plugin.deferral import Deferral, Look
    from pytest_fluxperf.plugin.second_look import SecondLook

    settings = config.stash[SETTINGS]
    if config.pluginmanager.has_plugin("fluxperf-ab-child"):
        return  # the conductor decides
    looks: list[Look] = [] if settings.update == "all" else [SecondLook(config)]
    if settings.old_python:
        from pytest_fluxperf.plugin.escalation import Escalation

        looks.append(Escalation(config, settings.old_python, settings.ab_timeout_s))
    config.pluginmanager.register(Deferral(config, looks), stash.DEFERRAL)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """In an xdist worker, fail the tests of a session that was refused."""
    if item.get_closest_marker("fluxperf"):
        stash.forgo_trace()
        stash.fail_if_refused(item.config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Measure and judge a marked test instead of calling it once."""
    if not pyfuncitem.get_closest_marker("fluxperf"):
        return None
    from pytest_fluxperf.plugin import reporting

    stash.forgo_trace()
    reporting.run(pyfuncitem)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report carry the result: it is what crosses from an xdist worker to the controller."""
    report = yield
    if item.get_closest_marker("fluxperf"):
        from pytest_fluxperf.plugin import reporting

        reporting.attach(item, report, call.excinfo.value if call.excinfo else None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable(
    report: pytest.CollectReport | pytest.TestReport,
) -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """In an xdist worker, encode what a report carries."""
    data = yield
    if data is not None and hasattr(report, "fluxperf"):
        data["fluxperf"] = report.fluxperf.encode()
    return data


@pytest.hookimpl(wrapper=True)
def pytest_report_from_serializable(
    data: dict[str, Any],
) -> Generator[None, pytest.TestReport | None, pytest.TestReport | None]:
    """In xdist's controller, decode it."""
    report = yield
    if report is not None and "fluxperf" in data:
        from pytest_fluxperf.bench.run import Envelope

        report.fluxperf = Envelope.decode(data["fluxperf"])  # type: ignore[attr-defined]
    return report


class _Reporting:
    """Hooks of the process that reports: the only one, or xdist's controller."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what a report carries."""
        if hasattr(report, "fluxperf"):
            from pytest_fluxperf.plugin import reporting

            reporting.collect(self._config, report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Move baselines, write the reports, and fail a run that judged nothing."""
        if SESSION in session.config.stash:
            from pytest_fluxperf.plugin import reporting

            reporting.finish(session)

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Show the table and where the report is."""
        if SESSION in self._config.stash:
            from pytest_fluxperf.plugin import reporting

            reporting.summarize(terminalreporter)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """xdist: give every worker the name of the run."""
        node.workerinput["fluxperf_run"] = stash.run_name(self._config)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """xdist: take over what the worker knows of its environment, or why it could not measure."""
        output = getattr(node, "workeroutput", {})
        if refused := output.get("fluxperf_refused"):
            self._config.stash.setdefault(REFUSED, refused)
        if "fluxperf" in output and SESSION in self._config.stash:
            from pytest_fluxperf.bench.run import Envelope

            collect.run_of(self._config).receive(Envelope.decode(output["fluxperf"]))


class _Working:
    """Hooks of an xdist worker."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Tell the controller what this process measured in, or why it could not."""
        output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]
        output["fluxperf_refused"] = session.config.stash.get(REFUSED, None)
        if SESSION in session.config.stash:
            from pytest_fluxperf.plugin import reporting

            output["fluxperf"] = reporting.envelope(session.config).encode()
            session.config.stash[SESSION].close()
