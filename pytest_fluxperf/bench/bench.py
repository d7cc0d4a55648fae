"""One fluxperf test, from its fixtures to its verdict.

A :class:`Bench` is made when the test is collected (settings and recipe are checked there), gets its pipeline when
the ``flux`` fixture is set up, and measures and judges when pytest calls the test.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pytest_fluxperf.baseline.run import record
from pytest_fluxperf.baseline.update import accepted
from pytest_fluxperf.bench.attempt import Attempt
from pytest_fluxperf.bench.case import Progress, case_of, check_bounds, inputs_for, recorded_bounds, silent
from pytest_fluxperf.bench.measuring import Body, measure, profile, with_witnesses
from pytest_fluxperf.bench.pictures import Pictures
from pytest_fluxperf.bench.reference import ReferenceFailed, ReferenceRecipe
from pytest_fluxperf.bench.session import Session
from pytest_fluxperf.bench.witnesses import ReferenceAnswers
from pytest_fluxperf.errors import FluxPerfError, OutOfMemory, Unavailable
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.gate.latency import TimeJudgement
from pytest_fluxperf.gate.verdict import judge
from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.measure.runner import BodyRaised
from pytest_fluxperf.pipelines import access
from pytest_fluxperf.pipelines.compile_counters import reached_limit
from pytest_fluxperf.pipelines.out_of_memory import SHORT, shortage
from pytest_fluxperf.quality import custom_metrics
from pytest_fluxperf.results import Baseline, Judgement, Measurement, PictureScores, Result
from pytest_fluxperf.settings import ItemSettings

if TYPE_CHECKING:
    from pytest_fluxperf.pipelines.pool import Prepared


def check(session: Session, benches: Sequence[Bench], *, needs_model: bool = True) -> None:
    """Find what would go wrong before anything is measured; ``needs_model`` if a test asks for a pipeline.

    Raises :class:`FluxPerfError` for a device that is not there, a model or prompts that cannot be read, a
    metric that cannot be computed, a damaged baseline, or a folder that cannot be written.
    """
    session.configurations = len(benches)
    custom_metrics.check(session.own_metrics)
    session.gpu, session.info, session.folder  # noqa: B018
    if needs_model:
        access.require(session.info)
    if session.settings.update:
        session.store.require_writable()
    if "lpips" in session.settings.metrics:
        session.metrics  # noqa: B018
    for bench in benches:
        bench.check()


class Bench:
    """Measures and judges one test in one session."""

    def __init__(self, session: Session, test: str, settings: ItemSettings, recipe: str | None) -> None:
        self.session = session
        self.test = test
        self.settings = settings
        self.recipe = recipe
        """Canonical recipe; None until a pipeline fixture asks for one (a body may bring its own pipeline)."""
        self.prepared: Prepared | None = None
        self.prepare_s: float | None = None
        self._expected: ReferenceAnswers | None = None
        self.out_of_memory = False
        """Whether its pipeline could not be prepared because the device's memory did not suffice."""
        self.remarks: tuple[str, ...] = ()
        """What is to be known of the test once its fixtures are torn down."""

    @cached_property
    def case(self) -> Case:
        """Everything that is known of the test before it is measured; :class:`FluxPerfError` for what cannot be."""
        return case_of(self.session, self.test, self.settings, self.recipe)

    @cached_property
    def reference(self) -> ReferenceRecipe:
        """Its reference recipe."""
        return ReferenceRecipe(self.session, self.case)

    @cached_property
    def inputs(self) -> GenerationInputs:
        """The mapping behind ``flux_inputs``."""
        return inputs_for(self.session, self.case.workload)

    def check(self) -> None:
        """Find what would go wrong before anything is measured; raises :class:`FluxPerfError` that names the test."""
        try:
            self.session.store.load(self.test)
            check_bounds(self.case, self.session.settings.metrics)
        except FluxPerfError as error:
            raise error.at(test=self.test) from None

    def change(self, *, settings: ItemSettings | None = None, recipe: str | None = None) -> None:
        """Ask for something else than what was collected."""
        self.settings = self.settings if settings is None else settings
        self.recipe = self.recipe if recipe is None else recipe
        for made in ("case", "reference"):
            vars(self).pop(made, None)

    # -- the pipeline --------------------------------------------------------------------------------------

    def prepare(self, recipe: str | None = None, progress: Progress = silent) -> Any:
        """Load and optimize the pipeline of this test; returns it.

        Raises :class:`Unavailable` when this environment cannot run the recipe, unless a baseline shows that one could:
        then what was lost is a failure.
        """
        if self.prepared is not None:
            raise FluxPerfError(f"{self.test} asks for two pipelines; a test measures one (parametrize it instead)")
        asked = self.session.recipe(self.settings.recipe if recipe is None else recipe, self.settings.steps)
        self.change(recipe=asked)
        with self._what_ran_must_run():
            self.session.require(asked)
            progress("waiting for the device", 0, 0, None)
            with self.session.device_lock():
                progress("being prepared", 0, 0, None)
                with self.reference.counted():
                    self.reference.pictures(progress)  # first, since it uses the same loaded base
                    self._expected = self.reference.answers() if self._witnessing else None
                start = time.perf_counter()
                self.prepared = self.session.acquire(asked, self.case.workload)
                self.prepare_s = time.perf_counter() - start
        return self.prepared.pipe

    @contextmanager
    def _what_ran_must_run(self) -> Iterator[None]:
        """An optimization that its baseline knows and this environment lacks is lost, not left out."""
        try:
            yield
        except OutOfMemory:
            self.out_of_memory = True
            raise
        except Unavailable as error:
            # Of two environments in turns, the conductor knows what the other one can run.
            if self.session.turns is None and self.session.store.load(self.test) is not None:
                path = os.path.relpath(self.session.store.path(self.test))
                raise FluxPerfError(
                    f"{error.problem}, but ran when its baseline was recorded",
                    **dataclasses.asdict(error.where),
                    remedy=f"delete {path} to give it up",
                ) from None
            raise

    def release(self) -> None:
        """Give the pipeline back; what the next test's recipe has in common with this one's stays applied."""
        if self.prepared is not None:
            changes = self.prepared.park()
            self.prepared = None
            if any(changes):
                self.remarks = (f"{self.test} left its pipeline changed: {changes}",)

    # -- the test ------------------------------------------------------------------------------------------

    def run(self, call: Callable[[], Any], progress: Progress) -> Result:
        """Measure, compare and judge.

        Raises :class:`BodyRaised` with ``result`` set when the body raised.
        """
        start = time.monotonic()
        body = Body(call, self.inputs, self.prepared)
        baseline = self.session.store.load(self.test)
        attempt = self._attempt(body, progress, baseline)
        if not self.session.turns and attempt.disturbed:
            # once more before the machine is called unfit, or a change is convicted that a slow host explains
            attempt = self._attempt(body, progress, baseline, before=attempt)
        while attempt.wants_another_round:
            attempt = attempt.joined(*self._measure(body, progress, warmup=0))
        if self.session.settings.profile and attempt.judgement.verdict not in ("broken", "invalid"):
            attempt = self._profiled(attempt, body)
        result = self._result(attempt, time.monotonic() - start)
        if attempt.raised is not None:
            attempt.raised.result = result
            raise attempt.raised
        return self._profiled_in_turn(attempt, body, result, start)

    def broken(self, problem: str) -> Result:
        """The result of a test that could not be set up, so that nobody takes the others for all there was."""
        with suppress(Exception):  # what keeps torch from loading may be what is broken
            importlib.import_module("torch")  # of whose settings the environment tells, to which baselines are compared
        measurement = Measurement(
            generations=(), prepare_s=self.prepare_s, problems=(problem,), out_of_memory=self.out_of_memory
        )
        baseline = self.session.store.load(self.test)
        return self._result(Attempt(case=self._case_now(), baseline=baseline, rounds=(measurement,)))

    def judged_again(self, result: Result, times: TimeJudgement) -> Judgement:
        """The judgement on a result of this bench, its time judged by more than its own numbers."""
        return judge(self._case_now(), result.measurement, result.scores, result.baseline, times=times)

    def _case_now(self) -> Case:
        """The case of what was just measured: the environment is known."""
        self.case = dataclasses.replace(self.case, environment=self.session.environment)
        return self.case

    def _attempt(
        self, body: Body, progress: Progress, baseline: Baseline | None, before: Attempt | None = None
    ) -> Attempt:
        """Measure and compare, as far as the body lets it."""
        scores = PictureScores()
        measurement, raised = self._measure(body, progress)
        if not measurement.problems and self._witnessing:
            measurement = with_witnesses(measurement, self.session, self.case, body, self._expected)
        if not measurement.problems:
            try:
                with self.session.device_lock():  # references may have to be made, and metrics run on the device too
                    scores = self._pictures().compare(measurement, baseline)
            except FluxPerfError as error:
                measurement = replace(measurement, problems=(*measurement.problems, str(error)))
        return Attempt(
            case=self._case_now(),
            baseline=baseline,
            rounds=(measurement,),
            scores=scores,
            raised=raised,
            before=before,
        )

    @property
    def _witnessing(self) -> bool:
        # in an A/B the other process uses the device after the last turn
        return self.session.settings.ledger and self.session.turns is None

    def _pictures(self) -> Pictures:
        return Pictures(self.session, self.case, self.reference, ours=self.prepared is not None)

    def _measure(
        self, body: Body, progress: Progress, warmup: int | None = None
    ) -> tuple[Measurement, BodyRaised | None]:
        """Measure; where the body or the reference timed beside it fails, a broken measurement and what to raise."""
        try:
            measurement = measure(
                self.session,
                self.case,
                body,
                pictures=self._pictures(),
                reference=self.reference,
                progress=progress,
                warmup=warmup,
            )
            return replace(measurement, prepare_s=self.prepare_s), None
        except BodyRaised as error:
            raised, broken = _failure(error)
        except ReferenceFailed as error:
            raised, broken = None, _broken(str(error), out_of_memory=isinstance(error, OutOfMemory))
        if raised is None:
            self.session.make_room()  # out of memory: the next test starts with what can be had
        return broken, raised

    def _profiled(self, attempt: Attempt, body: Body) -> Attempt:
        """``attempt`` with the kernels of one more generation; broken if that raises."""
        try:
            return attempt.profiled(profile(self.session, self.case, body, attempt.measurement))
        except Exception as error:  # the body's
            return attempt.failed(f"raised {type(error).__name__} when it was profiled: {error}".splitlines()[0])

    def _profiled_in_turn(self, attempt: Attempt, body: Body, result: Result, start: float) -> Result:
        """In an A/B comparison that asks for it: ``result`` with a profile, once it is safe with the conductor."""
        turns = self.session.turns
        if not turns or not turns.profile or result.run is None:
            return result
        turns.measured(result)  # whatever the profile does to this process
        try:
            attempt = attempt.profiled(profile(self.session, self.case, body, attempt.measurement))
        except Exception as error:
            turns.unprofiled = f"it raised {type(error).__name__}: {error}".splitlines()[0]
            return result
        return self._result(attempt, time.monotonic() - start)

    def _result(self, attempt: Attempt, duration_s: float = 0.0) -> Result:
        session, case, scores = self.session, attempt.case, attempt.scores
        result = Result(
            test=case.test,
            recipe=case.recipe,
            reference=case.reference,
            workload=case.workload,
            measurement=attempt.measurement,
            quality=scores.test,
            drift=scores.drift,
            baseline=attempt.baseline,
            judgement=attempt.judgement,
            run=record(
                attempt.measurement,
                scores,
                session=session.id,
                environment=session.environment,
                gpu_uuid=session.gpu.uuid,
                time_utc=session.time_utc,
                prompts=len(case.workload.prompts),
            ),
            duration_s=round(duration_s, 3),
            reference_s=round(self.reference.spent_s, 3),
            worker=session.worker,
            max_slowdown=case.policy.max_slowdown,
            bounds=recorded_bounds(case),
        )
        if attempt.judgement.verdict == "no baseline" and accepted(result, session.settings.update, case.hardware):
            why = next(f.message for f in attempt.judgement.findings if f.verdict == "no baseline")
            told = replace(attempt.judgement, message=f"{why}; this run is recorded as one")
            result = replace(result, judgement=told)
        return result


def _failure(error: BodyRaised) -> tuple[BodyRaised | None, Measurement]:
    """What to raise, if anything, and the broken measurement: running out of memory is no fault of the body's code."""
    cause = error.__cause__
    if (reason := shortage(cause)) is not None:
        assert cause is not None
        cause.__traceback__ = None  # its frames hold the tensors
        return None, _broken(f"{SHORT} {error}: {reason}", out_of_memory=True)
    first = (str(cause).splitlines() or [""])[0]
    if (limit := reached_limit(cause)) is not None:
        first = f"dynamo's {limit} was met"
    return error, _broken(f"raised {type(cause).__name__}: {first} ({error})")


def _broken(problem: str, *, out_of_memory: bool = False) -> Measurement:
    return Measurement(generations=(), problems=(problem,), out_of_memory=out_of_memory)
