"""Pictures and times of the reference recipe."""

from __future__ import annotations

from pytest_fluxperf.errors import FluxPerfError


class _ReferenceFailed(FluxPerfError):
    """The reference recipe raised; the message says what."""
