"""One pytest process: what it measures on, with which models and baselines.

Everything heavy is a lazy property, so a session without a fluxperf test touches none of it. Under xdist every
worker has a session of its own, and so has the controller, which measures nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_fluxperf.baseline.store import BaselineStore
from pytest_fluxperf.bench import prompts
from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import locked
from pytest_fluxperf.machine import hardware, software
from pytest_fluxperf.measure.clock import Clock, clock_for
from pytest_fluxperf.pipelines.models import RANDOM
from pytest_fluxperf.results import (
    Environment,
    Generation,
    Hardware,
    Result,
    Workload,
)
from pytest_fluxperf.settings import ItemSettings, RunSettings

if TYPE_CHECKING:
    from pytest_fluxperf.pipelines.models import ModelInfo
    from pytest_fluxperf.pipelines.pool import Pool, Prepared
    from pytest_fluxperf.quality.custom_metrics import PictureMetric
    from pytest_fluxperf.quality.metrics import Metrics
    from pytest_fluxperf.quality.reference import References


class Turns(Protocol):
    """How this process shares the device with another one that measures the same tests."""

    companions: tuple[int, ...]
    """Process groups that hold the device as well."""
    profile: bool
    """Whether a generation is to be profiled once the test at hand is measured."""
    unprofiled: str | None
    """Why that was not possible."""

    def passes(self, prompts: int) -> int:
        """How often a test goes through its ``prompts``."""

    def wait(self, made: Generation | None, total: int) -> None:
        """Give the turn away, warm (None) or after one of ``total`` generations; returns when it is back."""

    def measured(self, result: Result) -> None:
        """Tell what is known before the profile, and give the turn away; returns when it is back."""


def is_failure(error: BaseException) -> bool:
    """Whether what a body raised is a failure of the test, as far as Python itself can tell."""
    return isinstance(error, Exception | SystemExit)


class Session:
    """State of one process; ``run`` names the run's folder and is shared by xdist's workers."""

    def __init__(
        self,
        settings: RunSettings,
        *,
        run: str,
        worker: str = "",
        prompt_sets: Mapping[str, Sequence[str]] | None = None,
        models: Mapping[str, str] | None = None,
        own_metrics: Mapping[str, PictureMetric] | None = None,
        on_pipeline: Callable[[Any, str], None] | None = None,
        is_failure: Callable[[BaseException], bool] = is_failure,
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.prompt_sets = dict(prompt_sets or {})
        self.models = dict(models or {})
        self.own_metrics = dict(own_metrics or {})
        self._on_pipeline = on_pipeline
        self.is_failure = is_failure
        """Whether what the body raised is a failure of the test; else it passes through."""
        self.time_utc = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.id = run
        self.configurations = 0
        """fluxperf tests selected, over which Bonferroni's correction is shared."""
        self.environments: dict[str, Environment] = {}
        """What this process measured in, by digest."""
        self.answers: dict[tuple[object, ...], Any] = {}
        """What reference recipes' transformers answered to fixed inputs."""
        self.turns: Turns | None = None
        """Set in a process of an A/B comparison."""

    # -- where it runs -------------------------------------------------------------------------------------

    @cached_property
    def gpu(self) -> hardware.Gpu:
        """The device asked for by ``--gpu``; raises :class:`FluxPerfError` when it is not there."""
        return hardware.check_gpu(self.settings.gpu)

    @property
    def device(self) -> str:
        """torch's name of the device."""
        return self.gpu.device

    @property
    def hardware(self) -> Hardware:
        """What baselines belong to."""
        return self.gpu.hardware

    @property
    def environment(self) -> Environment:
        """The installed software: the first that a result was measured in, which holds torch's settings too."""
        if self.environments:
            return next(iter(self.environments.values()))
        found = software.capture()
        if "torch" in sys.modules:
            self.environments[found.digest] = found
        return found

    @cached_property
    def clock(self) -> Clock:
        """Device clock."""
        return clock_for(self.device)

    @property
    def relative(self) -> bool:
        """True when the speed-up over the reference recipe is gated instead of absolute latency."""
        mode = self.settings.latency
        return mode == "relative" or (mode == "auto" and self.hardware.kind == "cpu")

    @property
    def paired(self) -> bool:
        """True when the reference recipe is timed beside each generation: in relative mode, but not in an A/B."""
        return self.relative and self.turns is None

    @cached_property
    def folder(self) -> Path:
        """The run's folder under the reports; made here. Raises :class:`FluxPerfError` when it cannot be."""
        folder = self.settings.reports / self.id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError("Permission denied")
        except OSError as error:
            reason = error.strerror or str(error)
            raise FluxPerfError(
                f"the reports folder {self.settings.reports} cannot be written ({reason}); "
                "choose another by --fluxperf-reports"
            ) from None
        return folder

    @property
    def lock_path(self) -> Path:
        """File of the device's lock."""
        import tempfile

        return Path(tempfile.gettempdir()) / f"fluxperf-{os.getuid()}-{self.gpu.uuid or 'cpu'}.lock"

    def device_lock(self) -> AbstractContextManager[Any]:
        """Held while the device is used, so that xdist's workers and parallel sessions take turns on it.

        In an A/B comparison the conductor holds it for both processes.
        """
        return nullcontext() if self.turns else locked(self.lock_path)

    # -- models, baselines, pictures -----------------------------------------------------------------------

    @cached_property
    def info(self) -> ModelInfo:
        """The model under test: ``--fluxperf-model``, else the embedded one on a CPU and FLUX.1-dev on a GPU."""
        from pytest_fluxperf.pipelines.models import resolve

        name = self.settings.model or ("tiny" if self.device == "cpu" else "flux-dev")
        return resolve(name, self.models)

    @cached_property
    def pool(self) -> Pool:
        """Loaded pipelines."""
        from pytest_fluxperf.pipelines.pool import Pool

        return Pool(self.info, self.device)

    @cached_property
    def store(self) -> BaselineStore:
        """Baselines of this kind of hardware."""
        return BaselineStore(self.settings.baselines, self.gpu.name)

    @cached_property
    def metrics(self) -> Metrics:
        """Image metrics; raises :class:`FluxPerfError` when one that was asked for cannot be computed."""
        from pytest_fluxperf.quality.metrics import Metrics

        return Metrics(self.settings.metrics, self.device, self.own_metrics)

    @cached_property
    def references(self) -> References:
        """Reference pictures of the session."""
        from pytest_fluxperf.quality.reference import References

        return References(self.folder)

    def recipe(self, text: str | None, steps: int | None = None) -> str:
        """Canonical spelling of a recipe, with the device's usual dtype where none is named.

        With random weights, whose pictures meet no threshold, step caches that look at them get a schedule for
        ``steps`` denoising steps (by default the model's): ``fbcache:0.3`` becomes ``fbcache:0.3,computed=8``.
        """
        from pytest_fluxperf.pipelines.optimizations.stepcache import with_schedule
        from pytest_fluxperf.recipe import parse

        recipe = parse(self.dtype if text is None else text, dtype=self.dtype)
        if self.random:
            recipe = with_schedule(recipe, steps or self.info.defaults.steps)
        return str(recipe)

    @property
    def random(self) -> bool:
        """True when the model has random weights: its pictures are noise, and are neither compared nor kept."""
        return (self.settings.model or "").strip().endswith(RANDOM) and self.info.random

    @property
    def dtype(self) -> str:
        """The dtype of a recipe that names none: fp32 on a CPU, on a GPU what the model is served in."""
        return "fp32" if self.device == "cpu" else self.info.defaults.dtype

    def workload(self, settings: ItemSettings) -> Workload:
        """What a test generates; raises :class:`FluxPerfError` for prompts that cannot be read."""
        defaults = self.info.defaults
        size = settings.size or defaults.size
        height, width = (size, size) if isinstance(size, int) else size
        return Workload(
            model=self.info.name,
            prompts=prompts.load(
                settings.prompts,
                settings.seeds,
                settings.samples,
                folder=self.info.prompts or prompts.FOLDER,
                registered=self.prompt_sets,
            ),
            height=height,
            width=width,
            steps=settings.steps or defaults.steps,
            guidance=defaults.guidance if settings.guidance is None else settings.guidance,
        )

    def require(self, recipe: str) -> None:
        """Raise :class:`Unavailable` when this environment cannot run the recipe; loads nothing."""
        from pytest_fluxperf.pipelines.pool import require
        from pytest_fluxperf.recipe import parse

        require(parse(recipe), self.device)

    def acquire(self, recipe: str, workload: Workload, replica: int = 0) -> Prepared:
        """A pipeline with the recipe applied; see :meth:`Pool.acquire`."""
        from pytest_fluxperf.recipe import parse

        prepared = self.pool.acquire(parse(recipe), steps=workload.steps, replica=replica)
        if self._on_pipeline:
            self._on_pipeline(prepared.pipe, recipe)
        return prepared.hand_out()

    def make_room(self) -> None:
        """Free the device's memory of what is not in use."""
        if "pool" in vars(self):
            self.pool.make_room()

    def close(self) -> None:
        """Let go of the models."""
        if "pool" in vars(self):
            self.pool.close()
