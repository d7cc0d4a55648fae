"""What all step caches share: their decisions, the fixed schedule, and the hooks of those written here.

A step cache answers a denoising step from earlier ones. Whichever library decides, the decision passes through
:meth:`StepCache.decide`, which writes it into the step log and knows whether the cache was ever consulted.
"""

# ruff: noqa: ARG002, D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.pipelines.optimizations.base import Applied, Forwards, Host
from pytest_fluxperf.recipe import Field, Recipe, Token, integer

COMPUTED = Field(
    "computed",
    integer(1),
    "measuring mode: compute this many steps, spread evenly, whatever the cache itself decides",
)

TYPICAL_SHARE = 8 / 28
"""Share of the steps computed where a schedule stands in for a threshold. 8 of 28 is about what First-Block Cache at
0.3 was published to compute: 2.05 s against 7.11 s, 29 % of the time."""


def with_schedule(recipe: Recipe, steps: int) -> Recipe:
    """The recipe for random weights, whose pictures meet no threshold: caches that look at them follow a schedule.

    A token with a ``computed`` option that is not set gets :data:`TYPICAL_SHARE` of ``steps``.
    """

    def fixed(token: Token) -> Token:
        names = [field.name for field in token.spec.options]
        if COMPUTED.name not in names or token.option(COMPUTED.name) is not None:
            return token
        options = {**dict(token.options), COMPUTED.name: max(1, round(TYPICAL_SHARE * steps))}
        return replace(token, options=tuple((name, options[name]) for name in names if name in options))

    return Recipe(tuple(map(fixed, recipe.tokens)))


def in_schedule(index: int, computed: int, steps: int) -> bool:
    """Whether step ``index`` is one of ``computed`` steps spread evenly over ``steps``; step 0 always is."""
    return index * computed // steps != (index - 1) * computed // steps


def needs_eager_transformer(token: Token, recipe: Recipe) -> str | None:
    """Conflict of caches that decide on the host, between blocks, with one graph for all blocks."""
    compiled = recipe.token("compile")
    if compiled is not None and compiled.value == "whole":
        return f"{token.name!r} decides between blocks, which compile:whole makes one graph; use compile"
    return None


def needs_eager_blocks(token: Token, recipe: Recipe) -> str | None:
    """Conflict of caches that decide on the host inside of blocks with compiled blocks."""
    if (compiled := recipe.token("compile")) is not None:
        return f"{token.name!r} decides inside the blocks, where a compiled graph would break; leave {compiled} out"
    return None


class StepCache(Applied):
    """Base of the step caches; subclasses hook in and pass every decision through :meth:`decide`."""

    engine = "diffusers"

    def __init__(self, host: Host, token: Token) -> None:
        self.host = host
        self.token = token
        self.consulted = 0
        self._unheard = 0
        computed = token.option("computed")
        self.computed = None if computed is None else int(computed)
        if self.computed is not None and self.computed > host.num_steps:
            raise FluxPerfError(f"{token}: computed={self.computed}, but the run has only {host.num_steps} steps")

    def decide(self, compute: bool, index: int | None = None) -> bool:
        """Note the decision for the current step; returns the one to follow (the schedule's, if there is one).

        ``index`` is the step's, where the cache knows it.
        """
        self.consulted += 1
        if self.computed is not None:
            steps = self.host.num_steps
            compute = in_schedule((self._step() if index is None else index) % steps, self.computed, steps)
        self.host.steps.record(compute)
        return compute

    def _step(self) -> int:
        """The step's index: the scheduler's, since true classifier-free guidance calls the transformer twice a step."""
        scheduler = self.host.pipe.scheduler
        for name in ("step_index", "begin_index"):  # The first is None until a step has been made.
            if (index := getattr(scheduler, name, None)) is not None:
                return int(index)
        return self.host.steps.index

    def begin(self) -> None:
        self._judge()
        self.consulted = 0

    def _judge(self) -> None:
        """Count the steps of the generation that ends here that never asked the cache."""
        self._unheard += max(0, self.host.steps.index - self.consulted)

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"cache": str(self.token), "cache_engine": self.engine}
        if self.computed is not None:
            facts["cache_schedule"] = f"fixed: {self.computed} of {self.host.num_steps} steps computed"
        return facts

    def problems(self) -> tuple[str, ...]:
        ran, asked = self.host.steps.index, self.host.num_steps
        unheard = self._unheard + max(0, ran - self.consulted)
        if unheard:
            return (f"step cache {self.token} was asked for, but {unheard} denoising steps never consulted it",)
        # With true guidance the transformer is called twice a step, so twice the calls alone prove nothing.
        scheduled = getattr(self.host.pipe, "num_timesteps", asked) if ran else asked
        if scheduled != asked or ran % asked:
            made = ran if scheduled == asked else scheduled
            return (f"step cache {self.token} was set up for {asked} denoising steps, but the generation ran {made}",)
        return ()


class CacheState:
    """What a hooked cache remembers of one generation, for one context (conditional or unconditional calls)."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.index = -1
        """Step of the current call, from 0."""
        self.compute = True
        self.entry: Any = None
        self.stored: Any = None
        self.signal: Any = None
        self.change = 0.0


class HookedCache(StepCache):
    """A step cache that skips all blocks, as three kinds of hooks on the blocks: first, middle, last.

    Subclasses implement :meth:`should_compute`, which sees the first block's inputs before it runs, and
    :meth:`keep` / :meth:`answer`: what is stored after a computed step, and what the blocks' output is instead.
    Encoder states play no part: nothing reads them behind the last block.
    """

    engine = "fluxperf"
    _NAME = "fluxperf_step_cache"

    def __init__(self, host: Host, token: Token) -> None:
        super().__init__(host, token)
        self._states: Any = None
        self._forwards = Forwards(host.blocks())

    def apply(self) -> None:
        from diffusers.hooks.hooks import StateManager

        self._states = StateManager(CacheState)
        blocks = self.host.blocks()
        calls = [self._middle for _ in blocks]
        calls[0], calls[-1] = self._head, self._tail
        for registry, call in zip(self._registries(), calls, strict=True):
            registry.register_hook(_hook(call, self._states), self._NAME)
        self._invalidate()

    def should_compute(self, state: CacheState, block: Any, hidden: Any, temb: Any) -> bool:
        """The cache's own decision, before the first block runs on ``hidden`` (batch, tokens, width)."""
        raise NotImplementedError

    def keep(self, entry: Any, output: Any) -> Any:
        """What to store after a computed step whose blocks turned ``entry`` into ``output``."""
        raise NotImplementedError

    def answer(self, entry: Any, stored: Any) -> Any:
        """The blocks' output in a reused step."""
        raise NotImplementedError

    def begin(self) -> None:
        super().begin()
        self._states.reset()

    def undo(self) -> None:
        for registry in self._registries():
            registry.remove_hook(self._NAME, recurse=False)
        self._forwards.restore()
        self._invalidate()
        self._states = None

    def _registries(self) -> list[Any]:
        from diffusers.hooks.hooks import HookRegistry

        return [HookRegistry.check_if_exists_or_initialize(block) for block in self.host.blocks()]

    def _invalidate(self) -> None:
        from diffusers.hooks.hooks import HookRegistry

        # diffusers caches which modules carry hooks; a stale list would leave ours without a cache context.
        HookRegistry.check_if_exists_or_initialize(self.host.transformer).invalidate_child_registries_cache()

    def _head(self, block: Any, original: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        hidden, state = kwargs["hidden_states"], self._states.get_state()
        state.index += 1
        compute = self.should_compute(state, block, hidden, kwargs["temb"])
        state.compute = self.decide(compute, state.index)
        if not state.compute:
            return kwargs["encoder_hidden_states"], self.answer(hidden, state.stored)
        state.entry = hidden
        return original(**kwargs)

    def _middle(self, block: Any, original: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        if self._states.get_state().compute:
            return original(**kwargs)
        return kwargs["encoder_hidden_states"], kwargs["hidden_states"]

    def _tail(self, block: Any, original: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        output = self._middle(block, original, kwargs)
        state = self._states.get_state()
        if state.compute:
            state.stored = self.keep(state.entry, output[1])
            state.entry = None
        return output


def _hook(call: Callable[[Any, Callable[..., Any], dict[str, Any]], Any], states: Any) -> Any:
    """A diffusers hook that hands a block's call, all by keyword, to ``call(block, original forward, kwargs)``.

    ``states`` is an attribute of the hook because diffusers looks there to set the cache context.
    """
    from diffusers.hooks.hooks import ModelHook

    class Hook(ModelHook):  # type: ignore[misc]
        _is_stateful = True

        def __init__(self) -> None:
            super().__init__()
            self.states = states

        def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            kwargs.update(zip(_BLOCK_ARGUMENTS, args, strict=False))
            return call(module, self.fn_ref.original_forward, kwargs)

        def reset_state(self, module: Any) -> Any:
            self.states.reset()
            return module

    return Hook()


_BLOCK_ARGUMENTS = (
    "hidden_states",
    "encoder_hidden_states",
    "temb",
    "image_rotary_emb",
    "joint_attention_kwargs",
)
"""Parameters of FluxTransformerBlock.forward and FluxSingleTransformerBlock.forward, in order."""
