"""The back end of ``compile:tuned``: inductor with other choices for the kernels between products. Imports torch.

A FLUX block that is compiled by default loses time there, above all with dynamic FP8, where the input of every linear
layer is read for the scales of its rows and then to be rounded:

- Inductor cuts the maximum over a row of 15,360 (attention beside GELU, which the projection of a single block takes)
  into two kernels and rounds in a third. Rows that stay whole fit one kernel.
- It reads rows of more than 1,024 elements once for every pass. Up to 16,384 they fit a block's registers.
- GELU's tanh is libdevice's, a long sequence of instructions. The logistic function gives the same value by one fast
  exponential.

docs/measured.md holds what each of them brought, measured on an H100.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._inductor.choices import InductorChoices
from torch._inductor.compile_fx import compile_fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.runtime.hints import ReductionHint
from torch._inductor.virtualized import V

LONGEST_ROW = 16384
"""Elements of a row: 32 for each of the 512 threads that inductor gives one of this length."""

aten = torch.ops.aten


class WholeRows(InductorChoices):
    """Reductions along contiguous rows read every element once, where a row is short enough."""

    @staticmethod
    def should_use_persistent_reduction(features: Any, cooperative_reduction: bool) -> bool:
        """As inductor asks; its own rule for everything else."""
        if features.get_reduction_hint() == ReductionHint.INNER:
            return V.graph.sizevars.statically_known_leq(features.reduction_numel, LONGEST_ROW)
        return InductorChoices.should_use_persistent_reduction(features, cooperative_reduction)


class TanhByLogistic(CustomGraphPass):
    """Replaces every tanh of a graph: tanh(x) = 2 σ(2x) − 1, in float32 to within 3 units of 2⁻²⁴."""

    def __call__(self, graph: torch.fx.Graph) -> None:
        """Change ``graph`` in place."""
        for node in graph.find_nodes(op="call_function", target=aten.tanh.default):
            value: Any = node.args[0]
            with graph.inserting_before(node):
                for target, *arguments in (
                    (aten.mul.Tensor, 2.0),
                    (aten.sigmoid.default,),
                    (aten.mul.Tensor, 2.0),
                    (aten.sub.Tensor, 1.0),
                ):
                    value = graph.call_function(target, (value, *arguments))
                    value.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(value)
            graph.erase_node(node)

    def uuid(self) -> bytes:
        """Of this module, so that inductor's cache does not hand out kernels of another version of it."""
        return get_hash_for_files((__file__,))


OPTIONS: dict[str, Any] = {
    "max_autotune_pointwise": True,
    "force_fuse_int_mm_with_mul": True,
    "split_reductions": False,
    "post_grad_custom_pre_pass": TanhByLogistic(),
}
"""Of inductor. The first chooses launch parameters of fused kernels among more candidates, compiled by all cores.

What torchao would set for the whole process goes on to search by coordinate descent, one candidate after the other; on
an H200 that compiled two minutes longer for one percent (docs/measured.md).
"""


def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
    """Compile a graph; for ``torch.compile(backend=...)``."""
    with V.set_choices_handler(WholeRows()):
        return compile_fx(graph, inputs, config_patches=OPTIONS)
