"""Which weights: a name, a hub id or a folder → :class:`ModelInfo`, without loading anything."""

from __future__ import annotations

import difflib
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.files import is_there

RANDOM = "@random"
"""Suffix of a name that stands for the architecture with seeded random weights."""

SETTINGS_FILE = "fluxperf.json"
"""May lie beside ``model_index.json``: the fields of :class:`Defaults` and ``teacache_coefficients``."""

FLUX_DEV_TEACACHE_COEFFICIENTS = (
    4.98651651e02,
    -2.83781631e02,
    5.58554382e01,
    -3.82021401e00,
    2.64230861e-01,
)
"""FLUX.1-dev's polynomial, highest power first, as published by the authors of TeaCache (arXiv 2411.19108)
in their TeaCache4FLUX program."""


@dataclass(frozen=True)
class Defaults:
    """What a workload of the model is when nobody says otherwise (``size`` in pixels, square)."""

    size: int = 1024
    steps: int = 28
    guidance: float = 3.5
    max_sequence_length: int = 512
    dtype: str = "bf16"


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be loaded. ``source`` is a folder, a hub id, or the architecture's name if ``random``."""

    name: str
    source: str
    random: bool = False
    defaults: Defaults = Defaults()
    teacache_coefficients: tuple[float, ...] | None = None
    """Fitted for these weights; None where nobody did."""
    caveats: tuple[str, ...] = ()
    """What measurements of it cannot show, one line each."""
    prompts: Path | None = None
    """Folder of prompt sets in the model's own language; None where ordinary prompts suit."""


_DEV = ModelInfo("flux-dev", "black-forest-labs/FLUX.1-dev", teacache_coefficients=FLUX_DEV_TEACACHE_COEFFICIENTS)
_SCHNELL = ModelInfo(
    "flux-schnell",
    "black-forest-labs/FLUX.1-schnell",
    defaults=Defaults(steps=4, guidance=0.0, max_sequence_length=256),
)
_BY_NAME = {info.name: info for info in (_DEV, _SCHNELL)}
_BY_SOURCE = {info.source: info for info in _BY_NAME.values()}

_RANDOM_CAVEATS = (
    "the weights are random: pictures are noise, neither compared nor kept, and show no image quality",
    "the weights are random: step caches meet no threshold, so hits are those of a fixed schedule (computed=K)",
)


def resolve(name_or_path: str, registered: Mapping[str, str] | None = None) -> ModelInfo:
    """Find a model by name (``tiny``, ``flux-dev``, ``flux-dev@random``, ...), hub id or folder.

    ``registered`` are names of a project's own for folders or hub ids.
    Cheap: reads small JSON files at most and never the network; :mod:`access` tells whether it may be loaded.
    Raises :class:`FluxPerfError` for a folder that holds no Flux pipeline, and for an unknown name.
    """
    text = name_or_path.strip()
    if registered and text in registered:
        return replace(resolve(str(registered[text])), name=text)
    if text == "tiny":
        return _tiny()
    if text in _BY_NAME:
        return _BY_NAME[text]
    if text.endswith(RANDOM):
        return _random(text)
    if text and is_there(text):
        return _folder(Path(text).expanduser())
    if text in _BY_SOURCE:
        return _BY_SOURCE[text]
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text):
        return ModelInfo(text, text)
    names = ["tiny", *_BY_NAME, *(name + RANDOM for name in _BY_NAME), *(registered or ())]
    near = "".join(f" (did you mean {close!r}?)" for close in difflib.get_close_matches(text, names, n=1))
    raise FluxPerfError(
        f"model {name_or_path!r}: no such folder and no known name{near}; there are {', '.join(names)}, "
        "hub ids (owner/name) and folders of diffusers Flux pipelines"
    )


def _random(text: str) -> ModelInfo:
    base = _BY_NAME.get(text.removesuffix(RANDOM))
    if base is None:
        choices = " and ".join(name + RANDOM for name in _BY_NAME)
        raise FluxPerfError(f"model {text!r}: random weights exist for {choices}")
    return replace(base, name=text, source=base.name, random=True, caveats=_RANDOM_CAVEATS)


def _tiny() -> ModelInfo:
    try:
        folder = Path(importlib.import_module("pytest_fluxperf.pipelines.tiny").MODEL_DIR)
        return replace(_folder(folder), name="tiny", prompts=_prompts(folder))
    except (ImportError, AttributeError) as error:
        raise FluxPerfError(f"model 'tiny' is not part of this installation ({error})") from None


def _prompts(folder: Path) -> Path | None:
    """The ``prompts`` folder beside or above the weights."""
    return next((p / "prompts" for p in (folder, folder.parent) if (p / "prompts").is_dir()), None)


def _folder(folder: Path) -> ModelInfo:
    index = _read_json(
        folder / "model_index.json", f"model {str(folder)!r} is not a diffusers pipeline as save_pretrained writes it"
    )
    kind = index.get("_class_name")
    if kind != "FluxPipeline":
        raise FluxPerfError(f"model {str(folder)!r} is a {kind}, not a FluxPipeline; name a FLUX.1 model")
    config = _read_json(folder / "transformer" / "config.json", f"model {str(folder)!r} has no Flux transformer")
    # Guidance-distilled weights (FLUX.1-dev) embed the guidance scale; timestep-distilled ones (schnell) do not.
    defaults = _DEV.defaults if config.get("guidance_embeds") else _SCHNELL.defaults
    settings: dict[str, Any] = {}
    if (folder / SETTINGS_FILE).exists():
        from pytest_fluxperf.pipelines import model_settings  # Parsing a recipe needs this module and no msgspec.

        content = _read_json(folder / SETTINGS_FILE, f"model {str(folder)!r}")
        try:
            settings = model_settings.check(content)
        except ValueError as error:
            raise FluxPerfError(str(error), file=folder / SETTINGS_FILE) from None
    coefficients = settings.pop("teacache_coefficients", None)
    return ModelInfo(
        name=folder.resolve().name,
        source=str(folder),
        defaults=replace(defaults, **settings),
        teacache_coefficients=coefficients,
    )


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FluxPerfError(f"{what}: {path.name} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise FluxPerfError(f"{what}: {path.name} is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise FluxPerfError(f"{what}: {path.name} holds no object")
    return content
