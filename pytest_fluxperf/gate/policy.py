"""How much change is too much: the tolerances of the gate, from plain values; precedence is settled before."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.gate.statistics import NU0, PASS_CONFIDENCE, TAU0
from pytest_fluxperf.settings import LARGEST_QUALITY_TOLERANCE, LARGEST_SHARE, too_large_a_share

Mode = Literal["absolute", "relative"]

LEAST_SLOWDOWN = 0.01
"""Below this tolerance the gate cannot decide at any reasonable cost: refused."""

ADVISED_SLOWDOWN = 0.02
"""Below this tolerance the cost doubles and noisy configurations stay undecided: warned about."""

PSNR_CEILING_DB = 20 * math.log10(255)
"""PSNR at which pictures differ by one 8-bit level (root mean square), 48.1 dB: beyond it no one sees a change."""

SHARES = ("max_slowdown", "max_step_growth", "max_memory_growth")
"""Tolerances that are shares of what they judge."""

LARGEST: dict[str, float] = {
    "max_ssim_loss": 1.0, "max_ms_ssim_loss": 1.0, "max_psnr_loss_db": PSNR_CEILING_DB, "max_flip_rise": 1.0,
    "max_lpips_rise": 1.0, "max_ssim_collapse": 1.0, "quality_tolerance": LARGEST_QUALITY_TOLERANCE,
    "min_ssim": 1.0, "max_lpips": 1.0, "drift_min_ssim": 1.0, "tau0": 1.0, "nu0": 1e6, "m": 1e6,
}  # fmt: skip
"""The largest value of a tolerance that still judges something, or of a prior that data can still move."""

RELATIVE_DEFAULTS: dict[str, Any] = {
    "max_slowdown": 0.17,
    "max_step_growth": 0.05,
    "max_memory_growth": None,
    "tau0": 0.02,
    "nu0": 20.0,
}
"""Defaults of the relative mode where they differ; docs/gate.md argues them from a simulation."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Tolerances for one test. Fractions are plain (0.02 is 2 %); a wrong value is a FluxPerfError.

    In mode ``absolute`` the latency is judged. In mode ``relative`` (the CPU rule) it is the latency divided
    by the reference recipe's, timed beside it: the speed-up, which survives a change of machine.
    """

    mode: Mode = "absolute"
    max_slowdown: float = 0.02
    """Increase of the latency, or of the latency over the reference's in relative mode."""
    max_step_growth: float = 0.02
    """Increase of the computed denoising steps of a step cache."""
    max_memory_growth: float | None = 0.05
    """Increase of peak memory; None reports it without judging (a CPU process's peak depends on test order)."""
    max_ssim_loss: float = 0.01
    max_ms_ssim_loss: float = 0.01
    max_psnr_loss_db: float = 1.0
    max_flip_rise: float = 0.01
    max_lpips_rise: float = 0.01
    max_ssim_collapse: float = 0.10
    """Fall of a single prompt's SSIM, whatever the median says."""
    quality_tolerance: float = 1.0
    """Multiplies the quality tolerances above, collapse included."""
    min_ssim: float | None = None
    min_psnr: float | None = None
    max_lpips: float | None = None
    """Floors (and a ceiling) that every single prompt must keep, with a baseline or without."""
    drift_min_ssim: float = 0.20
    """Median SSIM of the reference recipe's pictures against the stored ones, below which drift fails."""
    strict: bool = False
    m: int = 1
    """Configurations judged in the session, for Bonferroni's correction."""
    pass_confidence: float = PASS_CONFIDENCE
    """Confidence at which a latency is passed against the stored baseline; higher where an A/B follows."""
    tau0: float = TAU0
    nu0: float = NU0
    """Prior of the between-session noise, stored with a baseline that is recorded under this policy."""

    @classmethod
    def of(cls, mode: Mode = "absolute", *, cpu: bool = False, **values: Any) -> Self:
        """Build a policy with the defaults of ``mode``, on a CPU or a GPU; a value of None leaves the default.

        Raises FluxPerfError on an unknown name or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise FluxPerfError(f"unknown tolerance {unknown[0]!r}: the tolerances are {', '.join(sorted(known))}")
        defaults = dict(RELATIVE_DEFAULTS) if mode == "relative" else {}
        if cpu:  # a process's peak depends on what ran before
            defaults["max_memory_growth"] = None
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**{**defaults, **given, "mode": mode})

    def __post_init__(self) -> None:
        if self.mode not in ("absolute", "relative"):
            raise FluxPerfError(f"mode={self.mode!r}: the modes are absolute and relative")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("mode", "strict") or (value is None and field.default is None):
                continue
            if value is None and field.name == "max_memory_growth":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise FluxPerfError(f"{field.name}={value!r}: a finite number is needed")
            if value < 0:
                raise FluxPerfError(f"{field.name}={value!r}: it must not be negative")
            self._check_size(field.name, value)
        if self.max_slowdown < LEAST_SLOWDOWN:
            raise FluxPerfError(
                f"max_slowdown={self.max_slowdown:g}: a tolerance under 1 % cannot be decided; choose 0.02 or more"
            )
        if self.tau0 == 0 or self.nu0 < 1:
            raise FluxPerfError(f"tau0={self.tau0:g}, nu0={self.nu0:g}: tau0 must be positive and nu0 at least 1")
        if not 0.5 <= self.pass_confidence < 1:
            raise FluxPerfError(f"pass_confidence={self.pass_confidence:g}: it lies between 0.5 and 1")
        if self.m < 1 or self.m != int(self.m):
            raise FluxPerfError(f"m={self.m!r}: the number of configurations is a positive integer")

    @staticmethod
    def _check_size(name: str, value: float) -> None:
        if name in SHARES and value > LARGEST_SHARE:
            raise FluxPerfError(f"{name}: {too_large_a_share(value)}")
        if value > LARGEST.get(name, math.inf):
            raise FluxPerfError(f"{name}={value:g}: it is at most {LARGEST[name]:g}")

    @property
    def limit(self) -> float:
        """The tolerance on the scale of log latency, ``ln(1 + max_slowdown)``."""
        return math.log1p(self.max_slowdown)

    @property
    def floored(self) -> bool:
        """Whether single prompts have a floor or ceiling to keep."""
        return any(bound is not None for bound in (self.min_ssim, self.min_psnr, self.max_lpips))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with these tolerances without being forbidden."""
        if self.max_slowdown < ADVISED_SLOWDOWN:
            return (
                f"a tolerance of {self.max_slowdown:.1%} is under 2 %: it costs twice the generations and leaves "
                "noisy configurations undecided",
            )
        return ()
