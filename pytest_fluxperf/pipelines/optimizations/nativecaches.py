# ruff: noqa: D102
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
"""diffusers' caches with a schedule: ``taylorseer``, ``magcache``, ``pab``, ``fastercache``.

When they reuse depends on the step or the timestep alone, never on the picture, so they hit with random weights too
and need no measuring mode. First-block cache, which looks at the picture, has a module of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pytest_fluxperf.pipelines.optimizations.base import Applied, Forwards, Host, Optimization, Stage, register
from pytest_fluxperf.pipelines.optimizations.stepcache import (
    StepCache,
    needs_eager_blocks,
    needs_eager_transformer,
)
from pytest_fluxperf.pipelines.quiet import quiet
from pytest_fluxperf.recipe import Field, Recipe, Token, TokenSpec, choice, integer, number


class NativeCache(StepCache):
    """A cache enabled by ``transformer.enable_cache``.

    Whether a step was computed is seen at one of the hooked modules: the hook around it calls the module's own
    ``forward``, or does not.
    """

    def __init__(self, host: Host, token: Token, config: Any, hook_name: str) -> None:
        super().__init__(host, token)
        self._config = config
        self._hook_name = hook_name
        self._forwards = Forwards(host.transformer.modules())

    def apply(self) -> None:
        with quiet():
            self.host.transformer.enable_cache(self._config)
        self._watch(self._hooked_modules()[0])

    def begin(self) -> None:
        super().begin()
        self.host.transformer._reset_stateful_cache()

    def undo(self) -> None:
        if self.host.transformer.is_cache_enabled:
            self.host.transformer.disable_cache()
        self._forwards.restore()

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"cache_hooks": len(self._hooked_modules())}

    def _hooked_modules(self) -> list[Any]:
        return [
            module
            for module in self.host.transformer.modules()
            if self._hook_name in getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
        ]

    def _watch(self, module: Any) -> None:
        """Report through :meth:`decide` whether each call of a hooked module runs the module itself."""
        reference = module._diffusers_hook.hooks[self._hook_name].fn_ref
        hooked, original = reference.forward, reference.original_forward
        ran = False

        def watched_original(*args: Any, **kwargs: Any) -> Any:
            nonlocal ran
            ran = True
            return original(*args, **kwargs)

        def watched(*args: Any, **kwargs: Any) -> Any:
            nonlocal ran
            ran = False
            output = hooked(*args, **kwargs)
            self.decide(ran)
            return output

        reference.forward, reference.original_forward = watched, watched_original


def _timestep(host: Host) -> Callable[[], Any]:
    return lambda: host.pipe.current_timestep


def _taylorseer(host: Host, token: Token) -> Applied:
    from diffusers import TaylorSeerCacheConfig
    from diffusers.hooks.taylorseer_cache import _TAYLORSEER_CACHE_HOOK

    config = TaylorSeerCacheConfig(
        cache_interval=int(token.option("interval") or 1),
        disable_cache_before_step=int(token.option("start") or 0),
        max_order=int(token.option("order") or 0),
        use_lite_mode=token.value == "lite",
    )
    return NativeCache(host, token, config, _TAYLORSEER_CACHE_HOOK)


def _magcache(host: Host, token: Token) -> Applied:
    from diffusers import MagCacheConfig
    from diffusers.hooks.mag_cache import _MAG_CACHE_LEADER_BLOCK_HOOK, FLUX_MAG_RATIOS

    config = MagCacheConfig(
        threshold=float(token.value or 0.0),
        max_skip_steps=int(token.option("skips") or 1),
        retention_ratio=float(token.option("retention") or 0.0),
        num_inference_steps=host.num_steps,
        mag_ratios=FLUX_MAG_RATIOS,
    )
    return NativeCache(host, token, config, _MAG_CACHE_LEADER_BLOCK_HOOK)


def _pab(host: Host, token: Token) -> Applied:
    from diffusers import PyramidAttentionBroadcastConfig
    from diffusers.hooks.pyramid_attention_broadcast import _PYRAMID_ATTENTION_BROADCAST_HOOK

    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=int(token.option("interval") or 1),
        spatial_attention_timestep_skip_range=(int(token.option("low") or 0), int(token.option("high") or 0)),
        current_timestep_callback=_timestep(host),
    )
    return NativeCache(host, token, config, _PYRAMID_ATTENTION_BROADCAST_HOOK)


def _fastercache(host: Host, token: Token) -> Applied:
    from diffusers import FasterCacheConfig
    from diffusers.hooks.faster_cache import _FASTER_CACHE_BLOCK_HOOK

    def timestep() -> Any:
        # FasterCache fails where a generation begins within its range (few steps, image to image): nothing is stored.
        return host.pipe.current_timestep if host.steps.index else math.inf

    config = FasterCacheConfig(
        spatial_attention_block_skip_range=int(token.option("interval") or 1),
        spatial_attention_timestep_skip_range=(-1, int(token.option("high") or 0)),
        is_guidance_distilled=True,
        tensor_format="BCHW",
        current_timestep_callback=timestep,
    )
    return NativeCache(host, token, config, _FASTER_CACHE_BLOCK_HOOK)


def _register(
    name: str,
    summary: str,
    make: Callable[[Host, Token], Applied],
    conflict: Callable[[Token, Recipe], str | None],
    *options: Field,
    value: Field | None = None,
) -> None:
    spec = TokenSpec(name, "cache", summary, value, options, lossless=False, conflict=conflict)
    register(Optimization(spec, Stage.CACHE, make, per_steps=True))


def _taylorseer_conflict(token: Token, recipe: Recipe) -> str | None:
    return (needs_eager_transformer if token.value == "lite" else needs_eager_blocks)(token, recipe)


def _pab_conflict(token: Token, recipe: Recipe) -> str | None:
    low, high = (int(token.option(name) or 0) for name in ("low", "high"))
    if low >= high:
        return f"'pab' reuses at timesteps above low={low} and below high={high}: there are none"
    return needs_eager_blocks(token, recipe)


_INTERVAL = "distance of computed steps"

_register(
    "taylorseer",
    "TaylorSeer: extrapolate attention outputs, or with 'lite' the transformer's output",
    _taylorseer,
    _taylorseer_conflict,
    Field("interval", integer(1), _INTERVAL, 5),
    Field("order", integer(0), "order of the Taylor expansion", 1),
    Field("start", integer(1), "first steps that are always computed", 3),
    value=Field("what", choice("attention", "lite"), "what is extrapolated", "attention"),
)
_register(
    "magcache",
    "MagCache: reuse while the residual's magnitude, known for FLUX.1, is predicted to stay",
    _magcache,
    needs_eager_transformer,
    Field("skips", integer(1), "most steps reused in a row", 3),
    Field("retention", number(0.0, 1.0), "share of the steps, at the beginning, that are always computed", 0.2),
    value=Field("T", number(), "bound of the accumulated error", 0.06),
)
_register(
    "pab",
    "Pyramid Attention Broadcast: reuse attention outputs within a range of timesteps",
    _pab,
    _pab_conflict,
    Field("interval", integer(1), _INTERVAL, 2),
    Field("low", integer(0), "timesteps above this may reuse", 100),
    Field("high", integer(1), "timesteps below this may reuse", 800),
)
_register(
    "fastercache",
    "FasterCache: extrapolate attention outputs from the last two at low timesteps",
    _fastercache,
    needs_eager_blocks,
    Field("interval", integer(1), _INTERVAL, 2),
    Field("high", integer(1), "timesteps below this may reuse", 681),
)
