"""One loaded base, recipes applied to it and undone.

>>> pool = Pool(resolve("tiny"), "cpu")                       # doctest: +SKIP
>>> flux = pool.acquire(parse("fp32+fbcache:0.1"), steps=28)  # doctest: +SKIP
>>> flux.begin()                                              # doctest: +SKIP
>>> picture = flux.pipe("a red circle").images[0]             # doctest: +SKIP
>>> flux.steps.decisions                                      # doctest: +SKIP
'1110101...'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_fluxperf.errors import FluxPerfError, OutOfMemory, Unavailable
from pytest_fluxperf.pipelines import loading
from pytest_fluxperf.pipelines.models import ModelInfo
from pytest_fluxperf.pipelines.optimizations import attention
from pytest_fluxperf.pipelines.optimizations.base import Applied, Host, Optimization, Stage, optimizations
from pytest_fluxperf.pipelines.optimizations.presets import expand
from pytest_fluxperf.pipelines.out_of_memory import SHORT, shortage
from pytest_fluxperf.pipelines.state import Changes, Snapshot
from pytest_fluxperf.pipelines.steps import StepLog
from pytest_fluxperf.recipe import Recipe, Token, parse, specs, variants


def unavailable(recipe: Recipe, device: str) -> str | None:
    """Why this environment cannot run the recipe on ``device`` (``cpu``, ``cuda``, ``cuda:1``), or None."""
    recipe = expand(recipe, device)
    for token, optimization in optimizations(recipe):
        reason = optimization.needs(token, recipe, device)
        if reason:
            return f"{token} {reason}"
    return None


def require(recipe: Recipe, device: str) -> None:
    """Raise :class:`Unavailable`, with the reason, when this environment cannot run the recipe on ``device``."""
    if reason := unavailable(recipe, device):
        raise Unavailable(reason, recipe=str(recipe))


def survey(device: str) -> list[tuple[Token, str | None]]:
    """Every token of the grammar, in every choice, and why this environment cannot run it on ``device``, or None."""
    listed: list[tuple[Token, str | None]] = []
    for token in (token for spec in specs() for token in variants(spec)):
        if token.family == "whole":
            listed.append((token, unavailable(parse(token.name), device)))
            continue
        bf16 = parse("bf16")
        needs = [optimization.needs(token, bf16, device) for _, optimization in optimizations(Recipe((token,)))]
        listed.append((token, next((reason for reason in needs if reason), None)))
    return listed


@dataclass
class _Layer:
    """One applied token; ``key`` says whether another recipe may keep it."""

    key: tuple[Any, ...]
    stage: Stage
    applied: Applied


@dataclass
class _Base:
    """A loaded pipeline and what is applied to it, first to last."""

    pipe: Any
    steps: StepLog
    layers: list[_Layer] = field(default_factory=list)
    owner: Prepared | None = None
    snapshot: Snapshot | None = None
    """How it was handed out, as long as it is."""

    def __post_init__(self) -> None:
        self._components = dict(self.pipe.components)

    def restore(self) -> None:
        """Put back the components (scheduler, VAE, ...) that a test's body or a hook has replaced."""
        for name, component in self._components.items():
            if getattr(self.pipe, name) is not component:
                setattr(self.pipe, name, component)

    def take_back(self) -> Changes:
        """Put back what was changed since it was handed out; says what that was."""
        snapshot, self.snapshot = self.snapshot, None
        return Changes() if snapshot is None else snapshot.restore()

    def tensors(self) -> list[Any]:
        """Weights of all components, and what is kept to undo."""
        modules = [component for component in self.pipe.components.values() if hasattr(component, "parameters")]
        weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        return [*weights, *(tensor for layer in self.layers for tensor in layer.applied.originals())]

    def undo_to(self, kept: int) -> None:
        """Undo all layers but the first ``kept``, the last first; goes on after a failure and raises it then."""
        failure: BaseException | None = None
        while len(self.layers) > kept:
            try:
                self.layers.pop().applied.undo()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure


class Prepared:
    """A pipeline under a recipe. It is valid until it is released or its base is acquired for another recipe."""

    def __init__(self, pool: Pool, base: _Base, host: Host, recipe: Recipe, expanded: Recipe) -> None:
        self._pool = pool
        self._base = base
        self._host = host
        self._expanded = expanded
        self.recipe = recipe
        """As asked for; what a whole recipe stands for is among the :meth:`facts`."""

    @property
    def pipe(self) -> Any:
        """The FluxPipeline."""
        return self._base.pipe

    @property
    def steps(self) -> StepLog:
        """Decisions of the current generation."""
        return self._base.steps

    @property
    def dtype(self) -> str:
        """``fp32``, ``bf16`` or ``fp16``."""
        return self._expanded.dtype

    @property
    def lossless(self) -> bool:
        """True when nothing in the recipe changes the picture by design."""
        return self._expanded.lossless

    @property
    def compiles(self) -> bool:
        """Whether a first generation compiles."""
        return self._expanded.token("compile") is not None

    def begin(self) -> None:
        """Start a generation: forget what caches kept of the previous one, even if it broke off."""
        self._require_valid()
        for layer in self._base.layers:
            layer.applied.begin()
        self._base.steps.begin()

    def facts(self) -> dict[str, Any]:
        """What was asked for and what is really active, JSON-able."""
        self._require_valid()
        transformer = self._host.transformer
        facts: dict[str, Any] = {
            "recipe": str(self._expanded),
            "model": self._host.info.name,
            "device": str(transformer.device),
            "attention": attention.seen_backends(transformer),
        }
        for layer in self._base.layers:
            facts |= layer.applied.facts()
        return facts

    def problems(self) -> tuple[str, ...]:
        """What was asked for but was not active in the generations so far, one line each."""
        self._require_valid()
        found = [problem for layer in self._base.layers for problem in layer.applied.problems()]
        seen = attention.seen_backends(self._host.transformer)
        if self._expanded.token("attention") is None and seen != ["native"]:
            found.append(f"no attention back end was asked for, but {', '.join(seen)} is set")
        return tuple(found)

    def contradictions(self, ran: Mapping[str, Any]) -> tuple[str, ...]:
        """What was asked for and is set, but did not run by the facts of a watched step; one line each."""
        self._require_valid()
        return tuple(found for layer in self._base.layers for found in layer.applied.contradictions(ran))

    def spare_memory_mib(self) -> float:
        """Device memory that the pool holds beside this pipeline, in MiB: its other bases, and originals kept to undo.

        A serving process would not hold it; subtract it from a peak of the whole process.
        """
        self._require_valid()
        return self._pool.memory_beside_mib(self._base)

    def hand_out(self) -> Prepared:
        """Remember the pipeline as it is now, to be put back when it is given back; returns self."""
        self._require_valid()
        self._base.snapshot = Snapshot(self.pipe)
        return self

    def release(self) -> Changes:
        """Undo everything; the base is then bit for bit what was loaded. Doing it again does nothing.

        Says what had been changed since it was handed out.
        """
        return self._give_back(None)

    def park(self) -> Changes:
        """Release, but leave what was expensive to apply (quantized weights, compiled blocks) to the next recipe.

        The next :meth:`Pool.acquire` keeps what both recipes begin with and undoes the rest. Caches, which may reach
        other pipelines, are undone here.
        """
        return self._give_back(Stage.COMPILATION)

    def _give_back(self, last_kept: Stage | None) -> Changes:
        if self._base.owner is not self:
            return Changes()
        self._base.owner = None
        changes = self._base.take_back()
        if changes.lost:
            self._pool.drop(self._base)
        else:
            kept = 0 if last_kept is None else sum(layer.stage <= last_kept for layer in self._base.layers)
            self._base.undo_to(kept)
        return changes

    def _require_valid(self) -> None:
        if self._base.owner is not self:
            raise FluxPerfError("the pipeline was released, or prepared for another recipe", recipe=str(self.recipe))


class Pool:
    """Loaded bases of one model on one device, each loaded once per dtype and replica."""

    def __init__(self, info: ModelInfo, device: str) -> None:
        self.info = info
        self.device = device
        self._bases: dict[tuple[str, int], _Base] = {}

    def acquire(self, recipe: Recipe, *, steps: int, replica: int = 0) -> Prepared:
        """Prepare the base of the recipe's dtype for ``steps`` denoising steps.

        What the previous recipe on that base applied is undone, but for the layers at the bottom that both share
        (quantized weights, compiled blocks), if it was parked and not released. Replicas are bases of their own.

        When the device's memory does not suffice, bases that are not in use are dropped and it is tried once more.

        Raises :class:`Unavailable` when this environment cannot run the recipe, and :class:`FluxPerfError` when
        the model cannot be loaded, the recipe does not fit the number of steps, or memory does not suffice;
        nothing stays applied then.
        """
        require(recipe, self.device)
        try:
            return self._prepare(recipe, steps, replica)
        except RuntimeError as error:
            if shortage(error) is None:
                raise
        self.make_room()
        try:
            return self._prepare(recipe, steps, replica)
        except RuntimeError as error:
            reason = shortage(error)
            if reason is None:
                raise
        self.make_room()
        raise OutOfMemory(f"{SHORT}: {reason}", recipe=str(recipe))

    def _prepare(self, recipe: Recipe, steps: int, replica: int) -> Prepared:
        expanded = expand(recipe, self.device)
        wanted = optimizations(expanded)
        base = self._base(expanded.dtype, replica)
        if base.take_back().lost:
            self.drop(base)
            base = self._base(expanded.dtype, replica)
        host = Host(base.pipe, self.info, self.device, base.steps, steps)
        keys = [_key(token, optimization, steps) for token, optimization in wanted]
        shared = 0
        while shared < min(len(keys), len(base.layers)) and base.layers[shared].key == keys[shared]:
            shared += 1
        base.owner = None
        base.restore()
        base.steps.begin()
        try:
            base.undo_to(shared)
            for key, (token, optimization) in list(zip(keys, wanted, strict=True))[shared:]:
                base.layers.append(_Layer(key, optimization.stage, optimization.make(host, token)))
                base.layers[-1].applied.apply()
        except BaseException:
            base.undo_to(0)
            raise
        base.owner = Prepared(self, base, host, recipe, expanded)
        base.owner.begin()
        return base.owner

    def drop(self, base: _Base) -> None:
        """Let go of a base that is not what was loaded; the next recipe on it loads it anew."""
        base.owner = None
        self._bases = {key: other for key, other in self._bases.items() if other is not base}
        base.undo_to(0)
        loading.free(self.device)

    def close(self) -> None:
        """Undo everything and let go of the models."""
        for base in self._bases.values():
            base.owner = None
            base.undo_to(0)
        self._bases.clear()
        loading.free(self.device)

    def memory_beside_mib(self, base: _Base) -> float:
        """Device memory of what the pool holds beside ``base`` as it runs, in MiB."""
        others = [tensor for other in self._bases.values() if other is not base for tensor in other.tensors()]
        kept = [tensor for layer in base.layers for tensor in layer.applied.originals()]
        return sum(map(_bytes, [*others, *kept])) / 2**20

    def make_room(self) -> None:
        """Let go of the bases that are not in use, and of memory that torch keeps for later."""
        for key in [key for key, base in self._bases.items() if base.owner is None]:
            self._bases.pop(key).undo_to(0)
        loading.free(self.device)

    def _base(self, dtype: str, replica: int) -> _Base:
        key = (dtype, replica)
        if key not in self._bases:
            pipe = loading.load(self.info, dtype, self.device)
            steps = StepLog()
            steps.attach(pipe.transformer)
            self._bases[key] = _Base(pipe, steps)
        return self._bases[key]


def _bytes(tensor: Any) -> int:
    """Memory of a tensor; of a quantized one, which calls itself bf16, that of its parts."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    return int(tensor.numel() * tensor.element_size())


def _key(token: Token, optimization: Optimization, steps: int) -> tuple[Any, ...]:
    return (token, steps if optimization.per_steps else None)
