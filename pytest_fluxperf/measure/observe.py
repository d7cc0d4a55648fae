"""What one denoising step really ran, seen by torch.profiler: attention kernels, dtypes, casts, compiled regions.

What is set on a pipeline is a wish: a dispatcher may fall back, a compiled region may be bypassed, an upcast may slip
in. One call of the transformer in a warm-up generation is watched at the level of operators, on the host alone, which
costs some milliseconds and touches no measured generation. Compiled code calls its attention and its matrix products
as operators too, so they are seen there as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pytest_fluxperf.measure import kineto

_ATTENTION = (
    (re.compile(r"cudnn_attention"), "cudnn"),
    (re.compile(r"flash_attn_?3|flash_attn_interface"), "flash_attn_3"),
    (re.compile(r"flash_attn(_?4|\W*_?cute)"), "flash_attn_4"),
    (re.compile(r"flash_attn"), "flash_attn"),
    (re.compile(r"flash_attention"), "flash"),
    (re.compile(r"xformers|^fmha::"), "xformers"),
    (re.compile(r"efficient_attention"), "efficient"),
    (re.compile(r"attention_math"), "math"),
    (re.compile(r"sage", re.IGNORECASE), "sage"),
    (re.compile(r"flex_attention"), "flex"),
)
"""Operators that compute attention, and the kernel that they stand for; torch's own and the packages'."""

_FUSED_AROUND = re.compile(r"triton_(?!tem)")
"""Kernels that inductor fuses from what comes before and after an operator, and names after it."""

_PRODUCTS = frozenset(
    f"aten::{name}"
    for name in ("mm", "addmm", "bmm", "baddbmm", "_scaled_mm", "_int_mm", "_weight_int8pack_mm", "_addmm_activation")
) | {"mkldnn::_linear_pointwise", "mkl::_mkl_linear"}

_DTYPES = {
    "float": "float32", "double": "float64", "c10::BFloat16": "bfloat16", "c10::Half": "float16",
    "signed char": "int8", "unsigned char": "uint8", "int": "int32", "long": "int64", "long int": "int64",
}  # fmt: skip
_NO_TENSOR = ("", "Scalar", "ScalarList", "TensorList")


class Event(Protocol):
    """What is read of a profiler's event."""

    def name(self) -> str: ...  # noqa: D102
    def dtypes(self) -> list[str]: ...  # noqa: D102


class Observation:
    """Collects what the watched step ran."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        """Empty until a step has been watched: ``ran_attention`` and ``ran_matmul_dtypes`` (sorted lists),
        ``weight_dtypes`` of the blocks, ``ran_casts`` (conversions between dtypes) and ``ran_compiled_regions``
        (calls of compiled code)."""

    def note(self, events: Iterable[Event]) -> None:
        """Take the events of one call of the transformer."""
        attention, products = set(), set()
        casts = compiled = 0
        for event in events:
            name = event.name()
            compiled += name.startswith("Torch-Compiled Region")
            if name.startswith(("Torch-Compiled", "##")) or _FUSED_AROUND.match(name):
                continue
            kind = next((kind for pattern, kind in _ATTENTION if pattern.search(name)), None)
            if kind is not None:
                attention.add(kind)
            elif name in _PRODUCTS:
                products.update(_tensors(event)[:2])
            elif name == "aten::copy_":
                to, *source = _tensors(event)
                casts += bool(source) and source[0] != to
        self.facts |= {
            "ran_attention": sorted(attention),
            "ran_matmul_dtypes": sorted(products),
            "ran_casts": casts,
            "ran_compiled_regions": compiled,
        }


@contextmanager
def first_step(transformer: Any, observation: Observation) -> Iterator[None]:
    """Watch the first call of ``transformer`` (which every step cache computes) inside; does nothing where a profiler
    runs already."""
    import torch

    if not hasattr(transformer, "register_forward_hook") or torch._C._autograd._profiler_enabled():
        yield
        return
    watching: Any = None
    handles: list[Any] = []

    def stop() -> Any:
        nonlocal watching
        stopped, watching = watching, None
        for handle in handles:
            handle.remove()
        handles.clear()
        if stopped is not None:
            stopped.stop()
        return stopped

    def before(*_: Any) -> None:
        nonlocal watching
        watching = kineto.profiler("cpu", record_shapes=True)  # dtypes come with the shapes
        watching.start()

    def after(*_: Any) -> None:
        if (stopped := stop()) is not None:
            observation.note(stopped.profiler.kineto_results.events())
            observation.facts["weight_dtypes"] = _weight_dtypes(transformer)

    handles += [transformer.register_forward_pre_hook(before), transformer.register_forward_hook(after)]
    try:
        yield
    finally:
        stop()


def _tensors(event: Event) -> list[str]:
    """dtypes of an operator's tensors, by their torch names."""
    return [_DTYPES.get(name, name.removeprefix("c10::")) for name in event.dtypes() if name not in _NO_TENSOR]


def _weight_dtypes(transformer: Any) -> list[str]:
    """dtypes of the weights of all blocks."""
    import torch

    blocks = [child for child in transformer.children() if isinstance(child, torch.nn.ModuleList)]
    return sorted({str(p.dtype).removeprefix("torch.") for block in blocks for p in block.parameters()})
