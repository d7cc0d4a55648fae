"""One fresh process of one environment that measures tests one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from filelock import FileLock

from pytest_fluxperf.ab.process import Side
from pytest_fluxperf.ab.protocol import Finished, Generated, Go, Plan, Prepared


def measure_once(
    side: Side, tests: Sequence[str] | None = None, *, least_pairs: int = 1, companions: tuple[int, ...] = ()
) -> Iterator[Finished]:
    """What came of each of ``tests`` (all that the process finds by default), each with ``least_pairs`` generations.

    ``companions`` are process groups that hold the device and keep still. Raises FluxPerfError where the process
    fails, or finds none of the tests.
    """
    with side:
        side.greet()
        found = side.collect()
        found.require_tests()
        assert found.lock is not None
        chosen = found.tests if tests is None else tuple(test for test in tests if test in found.tests)
        with FileLock(found.lock):
            side.plan(Plan(tests=chosen, least_pairs=least_pairs, quality=False, companions=companions))
            for _ in chosen:
                message: Prepared | Generated | Finished = side.ask(Go())  # type: ignore[assignment]
                while not isinstance(message, Finished):
                    message = side.ask(Go())  # type: ignore[assignment]
                yield message
