"""What a file of LoRA weights holds, and whether it belongs to a pipeline, known before anything is touched.

diffusers reads the formats that are in use (its own, kohya's, XLabs'), but forgives what does not match: it pads
weights that are too small, widens layers of the model, and leaves out what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODELS = ("transformer", "text_encoder")
"""Components that diffusers loads LoRA weights into."""

_MATRICES = ("A.weight", "B.weight")
_BIAS = "B.bias"


class Unsuitable(Exception):
    """The file cannot be fused into this pipeline; its text says why."""


@dataclass
class Adapter:
    """LoRA weights by diffusers' names for them (``transformer.LAYER.lora_A.weight``)."""

    state: dict[str, Any]
    alphas: dict[str, Any] | None
    metadata: dict[str, Any] | None
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Component → name → the linear layer that it changes."""
    biased: bool = False
    """Whether it changes biases too."""


def read(pipe: Any, path: Path) -> Adapter:
    """The adapter in ``path``, all of which belongs to ``pipe``.

    Raises :class:`Unsuitable`, or what diffusers and safetensors raise for a file that they cannot read.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:  # Never a pickle, whatever the file is called.
        if any("dora_scale" in key for key in file.keys()):  # noqa: SIM118 (it is no dictionary)
            raise Unsuitable("it is a DoRA, whose magnitudes diffusers leaves out")
    state, alphas, metadata = pipe.lora_state_dict(
        str(path.parent),
        weight_name=path.name,
        local_files_only=True,
        use_safetensors=True,
        return_alphas=True,
        return_lora_metadata=True,
    )
    adapter = Adapter(_as_peft(state, pipe), alphas, metadata)
    _match(adapter, {name: getattr(pipe, name, None) for name in MODELS})
    return adapter


def _as_peft(state: dict[str, Any], pipe: Any) -> dict[str, Any]:
    """The weights under peft's names, which not all files use."""
    from diffusers.utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    def transformer(part: dict[str, Any]) -> dict[str, Any]:
        return part if any(".lora_A." in key for key in part) else convert_unet_state_dict_to_peft(part)

    def text_encoder(part: dict[str, Any]) -> dict[str, Any]:
        named = convert_state_dict_to_peft(convert_state_dict_to_diffusers(part))
        flat = not hasattr(pipe.text_encoder, "text_model")  # since transformers 5
        return {key.removeprefix("text_model.") if flat else key: value for key, value in named.items()}

    for prefix, converted in {"transformer.": transformer, "text_encoder.": text_encoder}.items():
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part:
            others = {key: value for key, value in state.items() if not key.startswith(prefix)}
            state = others | {prefix + key: value for key, value in converted(part).items()}
    return state


def _match(adapter: Adapter, models: dict[str, Any]) -> None:
    """Find the layer of every weight; raises :class:`Unsuitable` for one that has none or is of another shape."""
    from torch.nn import Linear

    if not adapter.state:
        raise Unsuitable("it holds no weights")
    modules = {name: dict(model.named_modules()) for name, model in models.items() if model is not None}
    for key, weight in adapter.state.items():
        component, _, rest = key.partition(".")
        name, _, kind = rest.rpartition(".lora_")
        if component not in modules or kind not in (*_MATRICES, _BIAS):
            raise Unsuitable(f"it holds {key}, which is no LoRA weight of a {' or a '.join(models)}")
        layer = modules[component].get(name)
        if not isinstance(layer, Linear):
            raise Unsuitable(f"it holds {key}, and there is no such linear layer")
        if missing := [m for m in _MATRICES if f"{component}.{name}.lora_{m}" not in adapter.state]:
            raise Unsuitable(f"it holds {key} without lora_{missing[0]}")
        rank = adapter.state[f"{component}.{name}.lora_B.weight"].shape[-1]
        shapes = {
            "A.weight": (rank, layer.in_features),
            "B.weight": (layer.out_features, rank),
            _BIAS: (layer.out_features,),
        }
        if tuple(weight.shape) != shapes[kind]:
            is_, needed = ("×".join(map(str, shape)) for shape in (weight.shape, shapes[kind]))
            raise Unsuitable(f"{key} is {is_}, and the layer needs {needed}")
        adapter.layers.setdefault(component, {})[name] = layer
        adapter.biased |= kind == _BIAS
