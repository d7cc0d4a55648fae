"""Kernel names as families: what is left when everything is taken away that changes from build to build.

Tile shapes, pipeline stages, template arguments, running numbers and hashes follow the autotuner, the compiler and the
order of compilation. Two profiles are comparable only by what stays: the operation, its dtypes and its layout.
"""

from __future__ import annotations

import re

LONGEST_FAMILY = 120

_TILING = re.compile(
    r"_?(?:"
    r"(?:tilesize|warpgroupsize|cluster|tile)?\d+x\d+(?:x\d+)*"  # 128x128x64
    r"|(?:stages?|align|ldg|splitK|knob|bn|waves?)_?\d+"
    r"|kernel\d+(?:_\d+)?"
    r"|0d[\dd]*e?"  # signature of an older triton: 0d1d2de
    r"|[0-9a-f]{12,}"  # hash
    r")(?=_|$)"
)
_NUMBERED = re.compile(r"_\d+$")
_DTYPES = {
    "BFloat16": "bf16", "bfloat16_t": "bf16", "__nv_bfloat16": "bf16", "Half": "fp16", "half_t": "fp16",
    "__half": "fp16", "float": "fp32", "double": "fp64", "float_e4m3_t": "fp8", "float_e5m2_t": "fp8",
    "Float8_e4m3fn": "fp8", "tfloat32_t": "tf32", "signed char": "int8", "int8_t": "int8",
}  # fmt: skip
_DTYPE = re.compile(r"\b(?:" + "|".join(sorted(_DTYPES, key=len, reverse=True)) + r")\b")
_OPERATION = re.compile(r"\b\w*(?:Functor\w*|_kernel_cuda|_kernel_impl|Ops|GemmUniversal|Softmax\w*Epilogue)\b")
_WRAPPERS = frozenset({"gpu_kernel_impl", "gpu_kernel_impl_nocast"})
_CUTLASS = re.compile(r"\bcutlass(?:3x)?_\w+")
_GRAPH = re.compile(r"## Call CompiledFxGraph \S+ ##")


def family(name: str) -> str:
    """The family of a kernel or operator, at most :data:`LONGEST_FAMILY` characters.

    >>> family("triton_poi_fused_add_mul_12")
    'triton_poi_fused_add_mul'
    >>> family("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_128x64_32x6_tn_align8>(P)")
    'cutlass_80_tensorop_bf16_s16816gemm_bf16_tn'
    """
    if _GRAPH.match(name):
        return "compiled graph"
    text = name.partition(": ")[0] if name.startswith("Torch-Compiled Region") else name
    text = text.replace("(anonymous namespace)::", "").removeprefix("void ").strip()
    if named := _CUTLASS.search(text):  # the generated name is the first template argument
        text = named[0]
    if re.match(r"Mem(?:cpy|set)\b", text) or text.startswith(("aten::", "Torch-")):
        return text[:LONGEST_FAMILY]
    head, arguments = _split(text)
    parts = [_untiled(head)]
    # what an elementwise or reduction template does stands among its arguments
    parts += dict.fromkeys(found for found in _OPERATION.findall(arguments) if found not in _WRAPPERS and found != head)
    parts += dict.fromkeys(_DTYPES[found] for found in _DTYPE.findall(arguments))
    return " ".join(parts[:5])[:LONGEST_FAMILY]


def _split(text: str) -> tuple[str, str]:
    """Name and template arguments of a C++ function; the name with its innermost namespace."""
    end = min((at for at in (text.find("<"), text.find("(")) if at > 0), default=len(text))
    head, arguments = text[:end], text[end:]
    if arguments.startswith("("):  # a parameter list tells nothing that the name does not
        arguments = ""
    scopes = [scope for scope in head.strip().split("::") if scope]
    return "::".join(scopes[-2:]) or text, arguments


def _untiled(name: str) -> str:
    """``name`` without tile shapes, stages, hashes and running numbers."""
    if name.startswith("nvjet_"):  # cuBLAS: nvjet_<dtypes>_<tiles>_<cluster>_..._<layout>
        words = name.split("_")
        kept = [word for word in words[1:] if re.fullmatch(r"sm\d+|[a-z]{3,6}|[NT]{2,3}", word)]
        return "_".join(["nvjet", *kept])
    text = _TILING.sub("", name)
    while (shorter := _NUMBERED.sub("", text)) != text:
        text = shorter
    return text.strip("_") or name
