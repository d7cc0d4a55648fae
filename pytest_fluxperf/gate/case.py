"""What is known of a test before it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from pytest_fluxperf.gate.policy import Policy
from pytest_fluxperf.results import Against, Environment, Hardware, Result, Workload
from pytest_fluxperf.settings import ItemSettings


@dataclass(frozen=True, kw_only=True)
class Case:
    """A test, where it runs, and by which tolerances it is judged."""

    test: str
    """pytest node id."""
    recipe: str | None
    """Canonical recipe; None for a body that brings its own pipeline, or before a fixture has asked for one."""
    reference: str
    """Canonical recipe of the reference, ``baseline`` (a body without our pipeline), or ``none``."""
    workload: Workload
    hardware: Hardware
    policy: Policy
    card: str | None = None
    """UUID of the card; None on a CPU."""
    environment: Environment | None = None
    """Known once the test was measured: only then torch is loaded, of whose settings it tells."""
    settings: ItemSettings = field(default_factory=ItemSettings)
    """What was asked for; a recorded result knows no more of it than the policy holds."""
    against: Against = "baselines"
    """What it is judged against: the stored baseline, or a recorded session, which no option records anew."""

    @classmethod
    def of(
        cls,
        result: Result,
        *,
        hardware: Hardware,
        environment: Environment,
        policy: Policy,
        against: Against = "baselines",
    ) -> Self:
        """The case of a recorded result."""
        return cls(
            test=result.test,
            recipe=result.recipe,
            reference=result.reference,
            workload=result.workload,
            hardware=hardware,
            policy=policy,
            card=None if result.run is None else result.run.gpu_uuid,
            environment=environment,
            against=against,
        )
