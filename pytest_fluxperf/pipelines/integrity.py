"""Is a model folder whole? Most is found from files' headers in milliseconds, before any weight is read.

A missing or truncated weights file, or a configuration that does not match the weights, gets one clear error that names
the file. Whether every key of a file found its place, and every weight a key, is known when the libraries have loaded
them. Only safetensors are accepted: nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytest_fluxperf.errors import FluxPerfError

WEIGHTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Components of a Flux pipeline with weights, and the stem of their files."""

_HEADER_LIMIT = 100 * 2**20


def check_model_folder(folder: Path) -> None:
    """Check every weights file of a diffusers Flux folder, and the transformer's shapes against its configuration.

    Raises :class:`FluxPerfError` that names the file and says what is wrong with it.
    """
    for component, stem in WEIGHTS.items():
        if not (folder / component).is_dir():
            raise FluxPerfError("the folder is missing; the model is incomplete", file=folder / component)
        shapes: dict[str, tuple[int, ...]] = {}
        promised = _index(folder / component, stem)
        for path in _files(folder / component, stem):
            held = _header(path)
            lacking = sorted(key for key, file in promised.items() if file == path.name and key not in held)
            if lacking:
                raise FluxPerfError(f"lacks {_named(lacking)}, which the index promises", file=path)
            shapes |= held
        if component == "transformer":
            _check_transformer(folder / component, shapes)


class Fault(NamedTuple):
    """What is wrong with the keys of a weights file."""

    file: Path
    problem: str


def faults(folder: Path, component: str, loading_info: Mapping[str, Iterable[Any]]) -> list[Fault]:
    """What is wrong with ``component``'s files in ``folder``, by what its library says of loading them.

    ``loading_info`` is the second value of ``from_pretrained(output_loading_info=True)``. diffusers and transformers
    leave weights that are tied to others out of it, and those that a class ignores by design.
    """
    where = folder / component
    files = _index(where, WEIGHTS[component])
    # What no file holds is told of the file, or the index, that should know of it.
    whole = where / f"{WEIGHTS[component]}.safetensors{'.index.json' if files else ''}"
    found = []
    if missing := sorted(loading_info["missing_keys"]):
        found.append(Fault(whole, f"lacks {_named(missing)}"))
    if unexpected := sorted(loading_info["unexpected_keys"]):
        file = where / files.get(unexpected[0], whole.name)
        found.append(Fault(file, f"holds {_named(unexpected)}, for which the model has no place"))
    if mismatched := sorted(loading_info["mismatched_keys"]):
        key, stored, needed = mismatched[0]
        file = where / files.get(key, whole.name)
        shapes = f"{_shape(stored)}, where the model needs {_shape(needed)}"
        found.append(Fault(file, f"holds {_named([name for name, *_ in mismatched])} in another shape ({shapes})"))
    return [*found, *(Fault(whole, str(message)) for message in loading_info.get("error_msgs") or ())]


def require_whole(found: Sequence[Fault]) -> None:
    """Raise :class:`FluxPerfError` that tells all faults, with their files."""
    if found:
        first, *others = found
        more = [problem if file == first.file else f"{file}: {problem}" for file, problem in others]
        raise FluxPerfError(
            "; ".join((first.problem, *more)),
            file=first.file,
            remedy="weights without a key would be random: fetch or save the model anew",
        )


def _named(keys: Sequence[str]) -> str:
    """The first keys by name, and how many more there are."""
    shown = ", ".join(keys[:3])
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown


def _shape(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "a scalar"


_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What JSON raises that is none, or in which something has another type or size than is read from it."""


def _index(folder: Path, stem: str) -> dict[str, str]:
    """Which file holds which key, where weights are spread over several files; else empty."""
    index = folder / f"{stem}.safetensors.index.json"
    if not index.is_file():
        return {}
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        for name in files.values():
            if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
                raise ValueError(f"{name!r:.100} is no file beside it")
        return dict(files)
    except (*_UNUSABLE, OSError) as error:
        raise FluxPerfError(f"not an index of weights ({error})", file=index) from None


def _files(folder: Path, stem: str) -> list[Path]:
    if index := _index(folder, stem):
        return [folder / name for name in sorted(set(index.values()))]
    if (folder / f"{stem}.safetensors").is_file() or not list(folder.glob("*.bin")):
        return [folder / f"{stem}.safetensors"]
    raise FluxPerfError(
        "holds pickled weights only; convert them to safetensors (pickles are never loaded)", file=folder
    )


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a safetensors file whose size agrees with its header."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _HEADER_LIMIT):
                raise FluxPerfError(f"truncated or not a safetensors file ({size} bytes)", file=path)
            header: dict[str, Any] = json.loads(file.read(length))
    except FileNotFoundError:
        raise FluxPerfError("the weights file is missing", file=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise FluxPerfError(f"not a readable safetensors file ({error})", file=path) from None
    try:
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in tensors.items()}
    except _UNUSABLE:
        raise FluxPerfError("not a readable safetensors file (its header is damaged)", file=path) from None
    if size != 8 + length + end:
        raise FluxPerfError(f"truncated: {size} bytes, its header promises {8 + length + end}", file=path)
    return shapes


def _check_transformer(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
        wanted = {
            "x_embedder.weight": (width, int(config["in_channels"])),
            "context_embedder.weight": (width, int(config["joint_attention_dim"])),
        }
        blocks = {
            "transformer_blocks": int(config["num_layers"]),
            "single_transformer_blocks": int(config["num_single_layers"]),
        }
    except (*_UNUSABLE, OSError) as error:
        raise FluxPerfError(f"not the configuration of a Flux transformer ({error!r})", file=path) from None
    for name, shape in wanted.items():
        if shapes.get(name) != shape:
            stored = shapes.get(name, "absent")
            raise FluxPerfError(f"does not match the weights: {name} should be {shape}, it is {stored}", file=path)
    for name, count in blocks.items():
        found = len({key.split(".")[1] for key in shapes if key.startswith(f"{name}.")})
        if found != count:
            raise FluxPerfError(f"does not match the weights: {count} {name} asked for, {found} stored", file=path)
