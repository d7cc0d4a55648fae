"""What kernel families are called in a sentence: the operation that they compute, and whose code it is."""

from __future__ import annotations

import re

_OPERATIONS = (
    ("attention", re.compile(r"sdpa|flash|fmha|attention", re.IGNORECASE)),
    ("convolution", re.compile(r"conv(?!ert)|fprop|winograd", re.IGNORECASE)),
    (
        "matrix product",
        re.compile(r"gemm|gemv|nvjet|cutlass|xmma|splitk|_mm\b|mm$|::linear|triton_tem", re.IGNORECASE),
    ),
    ("layer norm", re.compile(r"layer_?norm", re.IGNORECASE)),
    ("RMS norm", re.compile(r"rms_?norm", re.IGNORECASE)),
    ("group norm", re.compile(r"group_?norm|RowwiseMoments", re.IGNORECASE)),
    ("softmax", re.compile(r"softmax", re.IGNORECASE)),
    ("copy", re.compile(r"^Mem(?:cpy|set)|copy|CatArray|::(?:cat|clone|contiguous)\b", re.IGNORECASE)),
    ("activation", re.compile(r"gelu|silu|relu|sigmoid|tanh", re.IGNORECASE)),
    ("reduction", re.compile(r"reduce|triton_(?:red|per)", re.IGNORECASE)),
    ("element-wise", re.compile(r"elementwise|triton_poi|BinaryFunctor|CUDAFunctor", re.IGNORECASE)),
)
"""In this order: an attention's kernel holds a cutlass name, a convolution's may be called an implicit gemm."""

_FUSED = re.compile(r"triton_(?:poi|per|red)_")
"""Inductor names its fused kernels after what they hold, an operator's neighbours included."""

_MAKERS = (
    ("inductor's fused", re.compile(r"triton_")),
    ("cuBLAS's", re.compile(r"nvjet|cublas", re.IGNORECASE)),
    ("cuDNN's", re.compile(r"cudnn", re.IGNORECASE)),
    ("CUTLASS's", re.compile(r"cutlass", re.IGNORECASE)),
    ("FlashAttention's", re.compile(r"flash", re.IGNORECASE)),
    ("the driver's", re.compile(r"^Mem(?:cpy|set)")),
    ("torch's own", re.compile(r"native|elementwise|vectorized|unrolled|reduce_kernel|aten::|CatArray|at_cuda")),
)

PLURALS = {
    "attention": "attention kernels",
    "convolution": "convolutions",
    "matrix product": "matrix products",
    "layer norm": "layer norms",
    "RMS norm": "RMS norms",
    "group norm": "group norms",
    "softmax": "softmax kernels",
    "copy": "copies",
    "activation": "activations",
    "reduction": "reductions",
    "element-wise": "element-wise kernels",
}


def operation(family: str) -> str | None:
    """What a family computes, a key of :data:`PLURALS`, or None where its name does not tell.

    >>> operation("cutlass_80_tensorop_bf16_s16816gemm_bf16_tn"), operation("triton_poi_fused_mul_mm")
    ('matrix product', 'element-wise')
    """
    for name, pattern in _OPERATIONS:
        if name in ("attention", "convolution", "matrix product") and _FUSED.match(family):
            continue
        if pattern.search(family):
            return name
    return None


def maker(family: str) -> str | None:
    """Whose code a family is, as a possessive, or None where its name does not tell.

    >>> maker("native::vectorized_layer_norm_kernel bf16 fp32")
    "torch's own"
    """
    return next((name for name, pattern in _MAKERS if pattern.search(family)), None)


def term(family: str) -> str:
    """A family in a sentence.

    >>> term("native::vectorized_layer_norm_kernel bf16 fp32"), term("triton_red_fused_native_layer_norm")
    ("torch's own layer norm", "inductor's fused layer norm")
    """
    what, whose = operation(family), maker(family)
    if what is None or whose is None:
        return family
    return f"{whose} {what}" + (" kernel" if what in ("attention", "element-wise") else "")
