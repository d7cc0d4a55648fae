"""Is a model folder whole? Found from files' headers in milliseconds, before any weight is read.

A missing or truncated weights file, or a configuration that does not match the weights, gets one clear error that names
the file. Only safetensors are accepted: nothing is ever unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
        for path in _files(folder / component, stem):
            shapes |= _header(path)
        if component == "transformer":
            _check_transformer(folder / component, shapes)


def _files(folder: Path, stem: str) -> list[Path]:
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, OSError) as error:
            raise FluxPerfError(f"not an index of weights ({error})", file=index) from None
        return [folder / name for name in names]
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
    except (OSError, ValueError) as error:
        raise FluxPerfError(f"not a readable safetensors file ({error})", file=path) from None
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    try:
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in tensors.items()}
    except (KeyError, TypeError, ValueError, IndexError):
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FluxPerfError(f"not the configuration of a Flux transformer ({error!r})", file=path) from None
    for name, shape in wanted.items():
        if shapes.get(name) != shape:
            stored = shapes.get(name, "absent")
            raise FluxPerfError(f"does not match the weights: {name} should be {shape}, it is {stored}", file=path)
    for name, count in blocks.items():
        found = len({key.split(".")[1] for key in shapes if key.split(".")[0] == name})
        if found != count:
            raise FluxPerfError(f"does not match the weights: {count} {name} asked for, {found} stored", file=path)
