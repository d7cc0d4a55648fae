"""One fluxperf test, from its fixtures to its verdict.

A :class:`Bench` is made when the test is collected (settings and recipe are checked there), gets its pipeline when
the ``flux`` fixture is set up, and measures and judges when pytest calls the test.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from pytest_fluxperf.baseline.codec import as_stored
from pytest_fluxperf.baseline.store import baseline_path
from pytest_fluxperf.baseline.update import accepted
from pytest_fluxperf.bench import witnesses
from pytest_fluxperf.bench.case import _BOUNDS, _OWN_BOUNDS, Progress, _replace, _untold
from pytest_fluxperf.bench.pictures import _not_finite
from pytest_fluxperf.bench.reference import _ReferenceFailed
from pytest_fluxperf.bench.session import Session
from pytest_fluxperf.errors import FluxPerfError, Unavailable, told
from pytest_fluxperf.gate.attribution import slow_host
from pytest_fluxperf.gate.interleaved import Interleaved
from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.gate.statistics import PASS_CONFIDENCE_AB
from pytest_fluxperf.gate.verdict import another_round, judge, record
from pytest_fluxperf.machine import telemetry
from pytest_fluxperf.measure import runner as measuring
from pytest_fluxperf.measure.inputs import GenerationInputs
from pytest_fluxperf.measure.observe import Observation, first_step
from pytest_fluxperf.pipelines.compile_counters import limit_met
from pytest_fluxperf.pipelines.out_of_memory import SHORT, shortage
from pytest_fluxperf.quality import images, reference
from pytest_fluxperf.results import (
    BASELINE,
    NONE,
    TRACES,
    Baseline,
    Generation,
    Judgement,
    KernelTable,
    Measurement,
    Picture,
    Prompt,
    Quality,
    Result,
    Workload,
)
from pytest_fluxperf.settings import ItemSettings


class _Subject:
    """A prepared pipeline as the runner sees it."""

    def __init__(self, prepared: Any) -> None:
        self.pipe = prepared.pipe
        self.begin = prepared.begin
        self._steps = prepared.steps

    @property
    def decisions(self) -> str | None:
        return self._steps.decisions or None


class Bench:
    """Measures and judges one test in one session."""

    def __init__(self, session: Session, test: str, settings: ItemSettings, recipe: str | None) -> None:
        self.session = session
        self.test = test
        self.settings = settings
        self.recipe = recipe
        """Canonical recipe; None until a pipeline fixture asks for one (a body may bring its own pipeline)."""
        self.prepared: Any = None
        self.prepare_s: float | None = None
        self.reference_s = 0.0
        self._expected: witnesses.ReferenceAnswers | None = None

    def check(self) -> None:
        """Find what would go wrong before anything is measured; raises :class:`FluxPerfError` that names the test."""
        try:
            self.workload, self.reference  # noqa: B018
            self.session.store.load(self.test)
            self.policy  # noqa: B018
            self._check_bounds()
        except FluxPerfError as error:
            raise FluxPerfError(f"{self.test}: {error}") from None

    def _check_bounds(self) -> None:
        """Raise :class:`FluxPerfError` for a bound of what nobody will measure."""
        for bound, metric in _BOUNDS.items():
            if getattr(self.settings, bound) is None:
                continue
            if metric not in self.session.settings.metrics:
                raise FluxPerfError(f"{bound} needs the metric {metric}, which --fluxperf-metrics leaves out")
            if self.reference == NONE:
                raise FluxPerfError(f"{bound} needs pictures to compare with, and reference is none")

    # -- fixtures ------------------------------------------------------------------------------------------

    @cached_property
    def workload(self) -> Workload:
        """What is generated."""
        return self.session.workload(self.settings)

    @cached_property
    def inputs(self) -> GenerationInputs:
        """The mapping behind ``flux_inputs``."""
        return GenerationInputs(self.workload, self._extra)

    @property
    def _warmup(self) -> int:
        return measuring.MIN_WARMUP if self.settings.warmup is None else self.settings.warmup

    @property
    def _extra(self) -> dict[str, Any]:
        return {"max_sequence_length": self.session.info.defaults.max_sequence_length}

    @property
    def reference(self) -> str:
        """Canonical recipe of the reference, ``baseline`` (a body without our pipeline), or ``none``."""
        asked = self.settings.reference
        if asked in (NONE, BASELINE):
            return str(asked)
        if asked is None and self.recipe is None:
            return BASELINE
        return self.session.recipe(asked, self.settings.steps)

    def prepare(self, recipe: str | None = None, progress: Progress = _untold) -> Any:
        """Load and optimize the pipeline of this test; returns it.

        Raises :class:`Unavailable` when this environment cannot run the recipe, unless a baseline shows that one could:
        then what was lost is a failure.
        """
        if self.prepared is not None:
            raise FluxPerfError(f"{self.test} asks for two pipelines; a test measures one (parametrize it instead)")
        asked = recipe if recipe is not None else self.settings.recipe
        self.recipe = self.session.recipe(asked, self.settings.steps)
        with self._what_ran_must_run():
            self.session.require(self.recipe)
            progress("waiting for the device", 0, 0, None)
            with self.session.device_lock():
                progress("being prepared", 0, 0, None)
                with self._on_reference():
                    self._reference_pictures(progress)  # first, since it uses the same loaded base
                    self._expected = self._reference_answers()
                start = time.perf_counter()
                self.prepared = self.session.acquire(self.recipe, self.workload)
                self.prepare_s = time.perf_counter() - start
        return self.prepared.pipe

    @contextmanager
    def _what_ran_must_run(self) -> Iterator[None]:
        """An optimization that its baseline knows and this environment lacks is lost, not left out."""
        try:
            yield
        except Unavailable as error:
            # Of two environments in turns, the conductor knows what the other one can run.
            if self.session.turns is None and self.session.store.load(self.test) is not None:
                path = os.path.relpath(self.session.store.path(self.test))
                raise FluxPerfError(
                    f"{error}, but ran when its baseline was recorded; delete {path} to give it up"
                ) from None
            raise

    def release(self) -> None:
        """Give the pipeline back; what the next test's recipe has in common with this one's stays applied."""
        if self.prepared is not None:
            self.prepared.park()
            self.prepared = None

    @property
    def _noise(self) -> bool:
        """Whether the pictures are noise of our own pipeline's random weights."""
        return self.session.random and self.recipe is not None

    # -- the test ------------------------------------------------------------------------------------------

    def run(self, call: Callable[[], Any], progress: Progress) -> Result:
        """Measure, compare and judge.

        Raises :class:`measuring.BodyRaised` with ``result`` set when the body raised.
        """
        start = time.monotonic()
        baseline = self.session.store.load(self.test)
        policy = self.policy
        first = attempt = self._attempt(call, progress, baseline, policy)
        if not self.session.turns and first.disturbed(baseline):
            # once more before the machine is called unfit, or a change is convicted that a slow host explains
            attempt = self._attempt(call, progress, baseline, policy)
        measurement, quality, drift = attempt.measurement, attempt.quality, attempt.drift
        judgement, raised = attempt.judgement, attempt.raised
        rounds = 1
        while raised is None and another_round(judgement, policy, rounds):
            # relative mode: what a noisy machine made suspicious is measured again before it is convicted
            more, raised = self._tried(call, progress, warmup=0)
            measurement = _joined(measurement, more)
            rounds += 1
            judgement = self._judge(measurement, quality, drift, baseline, policy)
        if self.session.settings.profile and judgement.verdict not in ("broken", "invalid"):
            measurement = self._profiled(measurement, call)
            judgement = self._judge(measurement, quality, drift, baseline, policy)
        if attempt is not first:
            judgement = _replace(judgement, warnings=(*judgement.warnings, first.told))
        result = self._result(measurement, judgement, start, baseline, quality, drift)
        if raised is not None:
            raised.result = result
            raise raised
        turns = self.session.turns
        if turns and turns.profile and result.run is not None:
            turns.measured(result)  # safe with the conductor, whatever the profile does to this process
            try:
                measurement = _replace(measurement, kernels=self._kernels(measurement, call))
            except Exception as error:
                turns.unprofiled = f"it raised {type(error).__name__}: {error}".splitlines()[0]
            else:
                result = self._result(measurement, judgement, start, baseline, quality, drift)
        return result

    def _attempt(
        self, call: Callable[[], Any], progress: Progress, baseline: Baseline | None, policy: Policy
    ) -> _Attempt:
        """Measure, compare and judge, as far as the body lets it."""
        quality = drift = None
        measurement, raised = self._tried(call, progress)
        if not measurement.problems and self._witnessing:
            measurement = self._witnessed(call, measurement)
        if not measurement.problems:
            with self.session.device_lock():  # references may have to be made, and metrics run on the device too
                measurement, quality, drift = self._compare(measurement, baseline)
        judgement = self._judge(measurement, quality, drift, baseline, policy)
        return _Attempt(measurement, quality, drift, judgement, raised)

    def _tried(
        self, call: Callable[[], Any], progress: Progress, warmup: int | None = None
    ) -> tuple[Measurement, measuring.BodyRaised | None]:
        """Measure; where the body or the reference timed beside it fails, a broken measurement and what to raise."""
        try:
            return self._measure(call, progress, warmup), None
        except measuring.BodyRaised as error:
            raised, problem = self._failure(error)
        except _ReferenceFailed as error:
            raised, problem = None, str(error)
        if raised is None:
            self.session.make_room()  # out of memory: the next test starts with what can be had
        return Measurement(generations=(), problems=(problem,)), raised

    def broken(self, problem: str) -> Result:
        """The result of a test that could not be set up, so that nobody takes the others for all there was."""
        with suppress(Exception):  # what keeps torch from loading may be what is broken
            importlib.import_module("torch")  # of whose settings the environment tells, to which baselines are compared
        measurement = Measurement(generations=(), prepare_s=self.prepare_s, problems=(problem,))
        baseline = self.session.store.load(self.test)
        judgement = self._judge(measurement, None, None, baseline, self.policy)
        return self._result(measurement, judgement, time.monotonic(), baseline)

    def _result(
        self,
        measurement: Measurement,
        judgement: Judgement,
        start: float,
        baseline: Baseline | None,
        quality: Quality | None = None,
        drift: Quality | None = None,
    ) -> Result:
        result = Result(
            test=self.test,
            recipe=self.recipe,
            reference=self.reference,
            workload=self.workload,
            measurement=measurement,
            quality=quality,
            drift=drift,
            baseline=baseline,
            judgement=judgement,
            run=record(
                measurement,
                quality,
                session=self.session.id,
                environment=self.session.environment,
                gpu_uuid=self.session.gpu.uuid,
                time_utc=self.session.time_utc,
                prompts=len(self.workload.prompts),
            ),
            duration_s=round(time.monotonic() - start, 3),
            reference_s=round(self.reference_s, 3),
            worker=self.session.worker,
            max_slowdown=self.policy.max_slowdown,
            bounds={name: v for name in _OWN_BOUNDS if (v := getattr(self.settings, name)) is not None},
        )
        update, hardware = self.session.settings.update, self.session.hardware
        if judgement.verdict == "no baseline" and accepted(result, update, hardware):
            told = f"{judgement.message.partition(';')[0]}; this run is recorded as one"
            result = _replace(result, judgement=_replace(judgement, message=told))
        return result

    @property
    def _witnessing(self) -> bool:
        # in an A/B the other process uses the device after the last turn
        return self.session.settings.ledger and self.session.turns is None

    def _witnessed(self, call: Callable[[], Any], measurement: Measurement) -> Measurement:
        """``measurement`` with the work of one more generation and what the transformer answers to fixed inputs."""
        fidelity, problems = None, measurement.problems
        with self.session.device_lock():
            prompt = self.workload.prompts[0]
            ledger, why = witnesses.ledger_of(call, self.inputs, prompt, self.prepared, self.session)
            if self.prepared is not None and self._expected is not None:
                try:
                    fidelity = witnesses.fidelity_of(self.prepared, self._expected)
                except FluxPerfError as error:
                    problems = (*problems, str(error))
        facts = measurement.facts if why is None else {**measurement.facts, "ledger": why}
        return _replace(measurement, ledger=ledger, fidelity=fidelity, facts=facts, problems=problems)

    def _profiled(self, measurement: Measurement, call: Callable[[], Any]) -> Measurement:
        """``measurement`` with the kernels of one more generation; broken if that raises."""
        try:
            return _replace(measurement, kernels=self._kernels(measurement, call))
        except Exception as error:  # the body's
            problem = f"raised {type(error).__name__} when it was profiled: {error}".splitlines()[0]
            return _replace(measurement, problems=(*measurement.problems, problem))

    def _kernels(self, measurement: Measurement, call: Callable[[], Any]) -> KernelTable:
        """Profile one more generation, of the first prompt; raises what the body raises."""
        from pytest_fluxperf.measure.profile import profile_generation

        session = self.session
        stem = session.folder / TRACES / baseline_path(self.test).with_suffix("")
        same = measurement.generations[:: len(self.workload.prompts)]
        with session.device_lock():
            self.inputs.load(self.workload.prompts[0])
            if self.prepared:
                self.prepared.begin()
            table = profile_generation(
                call,
                session.device,
                transformer=self.prepared.pipe.transformer if self.prepared else None,
                latency_s=statistics.median(generation.latency_s for generation in same),
                traces=stem,
            )
        folder = stem.parent.relative_to(session.folder)
        return _replace(table, traces=tuple(str(folder / name) for name in table.traces))

    def judged_again(
        self, result: Result, interleaved: Interleaved, grounds: tuple[Measurement, Baseline] | None
    ) -> Judgement:
        """The judgement on a result of this bench, its latency judged by a comparison with the old environment.

        ``grounds`` are what the comparison measured on both sides, from which a change is explained.
        """
        return self._judge(
            result.measurement, result.quality, result.drift, result.baseline, self.policy, interleaved, grounds
        )

    def _judge(
        self,
        measurement: Measurement,
        quality: Quality | None,
        drift: Quality | None,
        baseline: Baseline | None,
        policy: Policy,
        interleaved: Interleaved | None = None,
        grounds: tuple[Measurement, Baseline] | None = None,
    ) -> Judgement:
        session = self.session
        return judge(
            measurement,
            quality,
            baseline,
            policy,
            drift=drift,
            hardware=session.hardware,
            environment=session.environment,
            workload=self.workload,
            recipe=self.recipe,
            reference=self.reference,
            interleaved=interleaved,
            grounds=grounds,
        )

    @staticmethod
    def _failure(error: measuring.BodyRaised) -> tuple[measuring.BodyRaised | None, str]:
        """What to raise, if anything, and what to call it: running out of memory is no fault of the body's code."""
        cause = error.__cause__
        if (reason := shortage(cause)) is not None:
            assert cause is not None
            cause.__traceback__ = None  # its frames hold the tensors
            return None, f"{SHORT} {error}: {reason}"
        first = (str(cause).splitlines() or [""])[0]
        if (limit := limit_met(cause)) is not None:
            first = f"dynamo's {limit} was met"
        return error, f"raised {type(cause).__name__}: {first} ({error})"

    def _measure(self, call: Callable[[], Any], progress: Progress, warmup: int | None = None) -> Measurement:
        bench = self
        turns = self.session.turns
        passes = turns.passes(len(self.workload.prompts)) if turns else 1
        companions = turns.companions if turns else ()

        class Hooks(measuring.Hooks):
            def keep(self, index: int, output: Any, decoded: Any) -> tuple[Picture | None, tuple[str, ...]]:
                return bench._keep(index, output, decoded)

            def progress(self, stage: str, done: int, total: int, p50_s: float | None) -> None:
                progress(stage, done, total, p50_s)

            def compilation(self) -> Any:
                from pytest_fluxperf.pipelines.compile_counters import snapshot

                return snapshot()

            def is_failure(self, error: BaseException) -> bool:
                # pytest's own are no Exceptions; skip, xfail and exit are not for us to judge
                failed = isinstance(error, pytest.fail.Exception) and not isinstance(error, pytest.xfail.Exception)
                return failed or isinstance(error, Exception | SystemExit)

            def observing(self) -> AbstractContextManager[None]:
                return bench._observing(observation)

            def busy(self, began: float, ended: float) -> float | None:
                load = telemetry.during(bench.session.gpu.uuid, began, ended)
                if load is not None and load.sm_clock_mhz is not None:
                    clocks.append(load.sm_clock_mhz)
                return None if load is None else load.busy

            def turn(self, made: Generation | None) -> None:
                if turns:
                    turns.wait(made, passes * len(bench.workload.prompts))

        observation, clocks = Observation(), list[int]()
        hooks = Hooks()
        compiled = hooks.compilation()
        with self.session.device_lock():
            with self._on_reference():
                paired = self._paired_reference()
            hooks.reference = paired
            before = telemetry.read(self.session.gpu.uuid, companions)
            measurement = measuring.Runner(
                call=call,
                load=self.inputs.load,
                workload=self.workload,
                clock=self.session.clock,
                device=self.session.device,
                subject=_Subject(self.prepared) if self.prepared else None,
                warmup=self._warmup if warmup is None else warmup,
                passes=passes,
                beside_mib=self.prepared.spare_memory_mib() if self.prepared else 0.0,
                compiles=self.prepared is None or self.prepared.compiles,
                hooks=hooks,
            ).run()
            after = telemetry.read(self.session.gpu.uuid, companions)
        problems = measurement.problems
        compiled = hooks.compilation() - compiled
        facts: dict[str, Any] = {"graph_breaks": measurement.graph_breaks, **observation.facts}
        if self.prepared:
            facts = {**self.prepared.facts(), **facts}
            problems += self.prepared.problems() + self.prepared.contradictions(observation.facts)
        elif compiled.graphs:  # a body that compiles its own pipeline
            facts |= {
                "compiled_graphs": compiled.graphs,
                "inductor_cache_hits": compiled.cache_hits,
                "inductor_cache_misses": compiled.cache_misses,
            }
        if after is not None and clocks:
            after = _replace(after, sm_clock_mhz=round(statistics.median(clocks)))
        return _replace(
            measurement,
            prepare_s=self.prepare_s,
            facts=as_stored(facts),  # they are compared with a baseline's
            problems=problems,
            telemetry=after,
            unfit=tuple(dict.fromkeys((*telemetry.unfit(before), *telemetry.unfit(after)))),
        )

    def _observing(self, observation: Observation) -> AbstractContextManager[None]:
        if self.prepared is None:
            return nullcontext()
        return first_step(self.prepared.pipe.transformer, observation)

    @property
    def policy(self) -> Policy:
        """The test's tolerances."""
        s = self.settings
        return Policy.of(
            "relative" if self.session.relative else "absolute",
            cpu=self.session.hardware.kind == "cpu",
            max_slowdown=s.max_slowdown,
            max_memory_growth=s.max_memory_growth,
            min_ssim=s.min_ssim,
            min_psnr=s.min_psnr,
            max_lpips=s.max_lpips,
            quality_tolerance=s.quality_tolerance,
            strict=self.session.settings.strict,
            pass_confidence=PASS_CONFIDENCE_AB if self.session.settings.old_python else None,
            m=max(1, self.session.configurations),
        )

    # -- pictures ------------------------------------------------------------------------------------------

    def _keep(self, index: int, output: Any, decoded: Any) -> tuple[Picture | None, tuple[str, ...]]:
        """Validate and store the picture of one generation."""
        prompts = len(self.workload.prompts)
        where = f"picture of prompt {index % prompts + 1} of {prompts}"
        if decoded is not None and (bad := _not_finite(decoded)):
            return None, (f"{where} has {bad} NaN or infinite values",)
        try:
            pictures = images.pictures_of(output)
        except FluxPerfError as error:
            return None, (str(error),)
        known_size = self.prepared is not None
        problems = [
            f"{where} {problem}"
            for pixels in pictures
            if (
                problem := images.problem_of(
                    pixels,
                    self.workload.height if known_size else None,
                    self.workload.width if known_size else None,
                )
            )
        ]
        if self._noise:
            return None, tuple(problems)
        # several pictures of one generation are judged side by side as one
        if len({pixels.shape[0] for pixels in pictures}) > 1:
            return None, (f"{where}: the pictures of one generation differ in height",)
        return images.save(np.hstack(pictures), self.session.folder / "images", self.session.folder), tuple(problems)

    def _compare(
        self, measurement: Measurement, baseline: Baseline | None
    ) -> tuple[Measurement, Quality | None, Quality | None]:
        """Quality against the reference, and the reference's drift against the baseline's stored pictures."""
        if self._noise:
            return measurement, None, None
        try:
            first_round = measurement.generations[: len(self.workload.prompts)]
            pictures = [g.picture for g in first_round if g.picture]
            quality = drift = None
            if self.reference == BASELINE:
                stored = self._stored(baseline, "picture")
                if stored:
                    quality = self._against(pictures, stored, BASELINE, stored=True)
            elif self.reference != NONE:
                references = self._reference_pictures()
                quality = self._against(pictures, references, self.reference)
                stored = self._stored(baseline, "reference_picture")
                if stored and [p.sha256 for p in stored] != [p.sha256 for p in references]:
                    drift = self._against(references, stored, BASELINE, stored=True)
            return measurement, quality, drift
        except FluxPerfError as error:
            return _replace(measurement, problems=(*measurement.problems, str(error))), None, None

    def _against(
        self, pictures: Sequence[Picture], references: Sequence[Picture], name: str, *, stored: bool = False
    ) -> Quality:
        folder = self.session.folder
        source = self.session.store.images if stored else folder
        return reference.compare(pictures, references, name, self.session.metrics, folder, source)

    def _stored(self, baseline: Baseline | None, field: str) -> list[Picture]:
        """The pictures that a comparable baseline stored, or none."""
        if baseline is None or baseline.workload != self.workload or not baseline.runs:
            return []
        # Of the first run: those of each run that was appended would let them drift step by step.
        hashes = [getattr(sample, field) for sample in baseline.runs[0].samples]
        if not all(hashes):
            return []
        try:
            for digest in hashes:
                self.session.store.picture(digest)
        except FluxPerfError:
            if self.session.settings.update == "all":  # what is lost is recorded anew
                return []
            raise
        size = {"width": self.workload.width, "height": self.workload.height}
        return [Picture(path=f"{digest}.png", sha256=digest, **size) for digest in hashes]

    # -- the reference recipe ------------------------------------------------------------------------------

    def _reference_pictures(self, progress: Progress = _untold) -> tuple[Picture, ...]:
        if self.reference in (NONE, BASELINE) or self._noise:
            return ()
        return self.session.references.get(self.workload, self.reference, lambda: self._make_references(progress))

    def _reference_answers(self) -> witnesses.ReferenceAnswers | None:
        """What the reference recipe's transformer answers to fixed inputs; None where there is no such recipe."""
        if self.reference in (NONE, BASELINE) or not self._witnessing:
            return None
        return witnesses.reference_answers(
            self.session, self.workload, self.reference, replica=self._reference_replica, **self._extra
        )

    def _make_references(self, progress: Progress) -> list[Picture]:
        """Generate the reference recipe's pictures; raises :class:`FluxPerfError` when one is unusable."""
        session = self.session
        prepared = session.acquire(self.reference, self.workload, self._reference_replica)
        inputs = GenerationInputs(self.workload, self._extra)
        made = []
        try:
            for prompt in self.workload.prompts:
                inputs.load(prompt)
                prepared.begin()
                (pixels,) = images.pictures_of(prepared.pipe(**inputs))
                if problem := images.problem_of(pixels, self.workload.height, self.workload.width):
                    raise FluxPerfError(f"the picture of the reference recipe {self.reference} {problem}")
                made.append(images.save(pixels, session.folder / "images", session.folder))
                progress(f"reference {self.reference}", len(made), len(self.workload.prompts), None)
        except RuntimeError as error:
            if shortage(error) is None:
                raise
            raise self._reference_failed(error) from None
        finally:
            if not session.paired:
                prepared.park()
        return made

    def _reference_failed(self, error: Exception) -> _ReferenceFailed:
        """What the reference recipe raised, or why it could not be prepared, on one line."""
        if isinstance(error, FluxPerfError):
            what = str(error).removeprefix(f"recipe {self.reference}: ")
        else:
            reason = shortage(error)
            what = f"raised {told(error)}" if reason is None else f"{SHORT}: {reason}"
        return _ReferenceFailed(f"reference recipe {self.reference}: {what}")

    @property
    def _reference_replica(self) -> int:
        # relative mode times the reference between the test's generations: it needs a base of its own
        return 1 if self.session.paired else 0

    def _paired_reference(self) -> Callable[[Prompt], float] | None:
        """A function that times the reference recipe on a prompt; None where that is not wanted.

        Both raise :class:`_ReferenceFailed` when the recipe fails.
        """
        if not self.session.paired or self.reference in (NONE, BASELINE, self.recipe):
            return None
        try:
            prepared = self.session.acquire(self.reference, self.workload, self._reference_replica)
        except Exception as error:
            raise self._reference_failed(error) from None
        inputs = GenerationInputs(self.workload, self._extra)

        def time_one(prompt: Prompt) -> float:
            inputs.load(prompt)
            prepared.begin()
            try:
                with self._on_reference():
                    seconds, _, _ = measuring.timed(lambda: prepared.pipe(**inputs), self.session.clock)
            except Exception as error:
                prepared.park()  # not in use any more, so that room can be made of it
                raise self._reference_failed(error) from None
            return seconds

        return time_one

    @contextmanager
    def _on_reference(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.reference_s += time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class _Attempt:
    """A test measured once, and what came of it."""

    measurement: Measurement
    quality: Quality | None
    drift: Quality | None
    judgement: Judgement
    raised: measuring.BodyRaised | None

    def disturbed(self, baseline: Baseline | None) -> bool:
        """Whether the machine was unfit, or a slow host explains why the latency regressed."""
        if self.measurement.unfit or baseline is None:
            return bool(self.measurement.unfit)
        slower = any(f.metric == "latency" and f.verdict == "regressed" for f in self.judgement.findings)
        return slower and slow_host(self.measurement, baseline)

    @property
    def told(self) -> str:
        """What a second attempt says of the first."""
        if self.measurement.unfit:
            return f"measured twice: the first time {self.measurement.unfit[0]}"
        p50 = statistics.median(generation.latency_s for generation in self.measurement.generations)
        return f"measured twice: the first time the device waited for a slow host, p50 {p50:.4g} s"


def _joined(first: Measurement, more: Measurement) -> Measurement:
    """Two rounds as one measurement."""
    return _replace(
        first,
        generations=first.generations + more.generations,
        graph_breaks=first.graph_breaks + more.graph_breaks,
        recompiles=first.recompiles + more.recompiles,
        recompile_reasons=first.recompile_reasons + more.recompile_reasons,
        problems=first.problems + more.problems,
        unfit=first.unfit + more.unfit,
    )
