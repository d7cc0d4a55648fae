# ruff: noqa: D102 (overriding methods inherit their documentation)
"""para-attn's First-Block Cache on the diffusers of today.

para-attn 0.3.38 expects single blocks that take text and image as one sequence; since diffusers 0.35 they take and
return the two apart. The adapter replaces the one method that runs the blocks; deciding, storing and reusing remain
para-attn's own. :func:`adapter_fits` tells when either side has moved on.
"""

from __future__ import annotations

import inspect
from typing import Any
from unittest import mock

from pytest_fluxperf.pipelines.optimizations.base import Host
from pytest_fluxperf.pipelines.optimizations.isolation import Isolated
from pytest_fluxperf.pipelines.optimizations.stepcache import StepCache
from pytest_fluxperf.recipe import Token


def adapter_fits() -> str | None:
    """Why the adapter is unnecessary or wrong for the installed para-attn and diffusers, or None when it fits."""
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
    from para_attn.first_block_cache.utils import CachedTransformerBlocks

    if "encoder_hidden_states" not in inspect.signature(FluxSingleTransformerBlock.forward).parameters:
        return "diffusers' single blocks take one sequence, as para-attn expects: the adapter is unnecessary"
    method = getattr(CachedTransformerBlocks, "call_remaining_transformer_blocks", None)
    if method is None:
        return "para-attn has no CachedTransformerBlocks.call_remaining_transformer_blocks: the adapter is wrong"
    if "block(hidden_states, *args, **kwargs)" not in inspect.getsource(method):
        return "para-attn calls single blocks in another way than the adapter replaces: is it still necessary?"
    return None


class ParaAttentionCache(StepCache):
    """``fbcache:T,engine=para-attn``."""

    engine = "para-attn"

    def __init__(self, host: Host, token: Token) -> None:
        super().__init__(host, token)
        self._isolated = Isolated(host.pipe)

    def apply(self) -> None:
        from para_attn.first_block_cache import utils
        from para_attn.first_block_cache.diffusers_adapters import apply_cache_on_pipe

        self._isolated.isolate()
        with mock.patch.object(utils, "CachedTransformerBlocks", self._blocks_class(utils)):
            apply_cache_on_pipe(self.host.pipe, residual_diff_threshold=float(self.token.value or 0.0))

    def undo(self) -> None:
        self._isolated.restore()

    def _blocks_class(self, utils: Any) -> type:
        decide = self.decide

        class Blocks(utils.CachedTransformerBlocks):  # type: ignore[misc]
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                ask = utils.get_can_use_cache

                def can_use_cache(*residual: Any, **options: Any) -> bool:
                    return not decide(not ask(*residual, **options))

                with mock.patch.object(utils, "get_can_use_cache", can_use_cache):
                    return super().forward(*args, **kwargs)

            def call_remaining_transformer_blocks(
                self, hidden_states: Any, encoder_hidden_states: Any, *args: Any, **kwargs: Any
            ) -> Any:
                hidden, encoder = hidden_states, encoder_hidden_states
                for block in [*self.transformer_blocks[1:], *self.single_transformer_blocks]:
                    encoder, hidden = block(hidden, encoder, *args, **kwargs)
                return hidden, encoder, hidden - hidden_states, encoder - encoder_hidden_states

        return Blocks
