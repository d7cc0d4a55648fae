"""The reference recipe of a test: its pictures, and its time beside each generation in relative mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_fluxperf.bench.case import Progress, inputs_for, is_noise, silent
from pytest_fluxperf.bench.session import Session
from pytest_fluxperf.bench.witnesses import ReferenceAnswers, reference_answers
from pytest_fluxperf.errors import FluxPerfError, OutOfMemory, one_line
from pytest_fluxperf.gate.case import Case
from pytest_fluxperf.measure.runner import time_call
from pytest_fluxperf.pipelines.out_of_memory import SHORT, shortage
from pytest_fluxperf.quality import images
from pytest_fluxperf.results import BASELINE, NONE, Picture, Prompt

if TYPE_CHECKING:
    from pytest_fluxperf.pipelines.pool import Prepared


class ReferenceFailed(FluxPerfError):
    """The reference recipe raised, or could not be prepared; the message says what."""


class ReferenceOutOfMemory(ReferenceFailed, OutOfMemory):
    """The device's memory does not suffice for the reference recipe."""


class ReferenceRecipe:
    """Runs the reference recipe of one test."""

    def __init__(self, session: Session, case: Case) -> None:
        self._session = session
        self._case = case
        self.spent_s = 0.0
        """Seconds spent on it: its pipeline, and its pictures as far as this test was the first to need them."""

    def pictures(self, progress: Progress = silent) -> tuple[Picture, ...]:
        """Its pictures of the test's prompts; none where it is no recipe, or they would be noise.

        Raises :class:`FluxPerfError` when one is unusable.
        """
        if self._case.reference in (NONE, BASELINE) or is_noise(self._session, self._case):
            return ()
        return self._session.references.get(self._case.workload, self._case.reference, lambda: self._make(progress))

    def answers(self) -> ReferenceAnswers | None:
        """What its transformer answers to fixed inputs; None where it is no recipe, or its pipeline takes none.

        Raises what preparing it raises.
        """
        if self._case.reference in (NONE, BASELINE):
            return None
        return reference_answers(
            self._session,
            self._case.workload,
            self._case.reference,
            max_sequence_length=self._session.info.defaults.max_sequence_length,
            replica=self._replica,
        )

    def timer(self) -> Callable[[Prompt], float] | None:
        """A function that times it on a prompt, in seconds; None where that is not wanted.

        Both raise :class:`ReferenceFailed` when the recipe fails.
        """
        if not self._session.paired or self._case.reference in (NONE, BASELINE, self._case.recipe):
            return None
        with self.counted():
            try:
                prepared = self._acquire()
            except Exception as error:
                raise self._failed(error) from None
        inputs = inputs_for(self._session, self._case.workload)

        def time_one(prompt: Prompt) -> float:
            inputs.load(prompt)
            prepared.begin()
            try:
                with self.counted():
                    seconds, _, _ = time_call(lambda: prepared.pipe(**inputs), self._session.clock)
            except Exception as error:
                prepared.park()  # not in use any more, so that room can be made of it
                raise self._failed(error) from None
            return seconds

        return time_one

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is done inside as spent on the reference recipe."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s += time.perf_counter() - start

    @property
    def _replica(self) -> int:
        # relative mode times the reference between the test's generations: it needs a base of its own
        return 1 if self._session.paired else 0

    def _acquire(self) -> Prepared:
        return self._session.acquire(self._case.reference, self._case.workload, self._replica)

    def _make(self, progress: Progress) -> list[Picture]:
        session, workload, recipe = self._session, self._case.workload, self._case.reference
        prepared = self._acquire()
        inputs = inputs_for(session, workload)
        made: list[Picture] = []
        try:
            for prompt in workload.prompts:
                inputs.load(prompt)
                prepared.begin()
                (pixels,) = images.pictures_of(prepared.pipe(**inputs))
                if problem := images.problem_of(pixels, workload.height, workload.width):
                    raise FluxPerfError(f"the picture of the reference recipe {recipe} {problem}")
                made.append(images.save(pixels, session.folder / "images", session.folder))
                progress(f"reference {recipe}", len(made), len(workload.prompts), None)
        except RuntimeError as error:
            if shortage(error) is None:
                raise
            raise self._failed(error) from None
        finally:
            if not session.paired:
                prepared.park()
        return made

    def _failed(self, error: Exception) -> ReferenceFailed:
        """What it raised, or why it could not be prepared, on one line."""
        recipe = self._case.reference
        if isinstance(error, FluxPerfError):
            kind = ReferenceOutOfMemory if isinstance(error, OutOfMemory) else ReferenceFailed
            return kind(error.without("recipe"), reference=recipe)
        if (reason := shortage(error)) is not None:
            return ReferenceOutOfMemory(f"{SHORT}: {reason}", reference=recipe)
        return ReferenceFailed(f"raised {one_line(error)}", reference=recipe)
