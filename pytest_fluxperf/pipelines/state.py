"""What a test may leave changed in a pipeline: seen, and put back.

A snapshot holds the attributes of the pipeline and of all that it is made of: components, their modules, attention
processors, configurations. Replaced components, wrapped methods, hooks, adapters and switches are put back from it.
Of weights it holds a checksum alone: a pipeline whose weights were changed in place has to be loaded anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

_SCALARS = (bool, int, float, str, type(None))
_COPIED = (dict, OrderedDict, list, set)
"""Containers that may be changed in place, exactly of these types: they are copied, one level deep."""

_OF_A_GENERATION = frozenset({"num_inference_steps", "_step_index", "_begin_index"})
"""Scalars of a scheduler that every generation sets anew."""

_ADAPTED = "_hf_peft_config_loaded"
_SWITCHES = frozenset({_ADAPTED, "_internal_dict"})
"""Private attributes of diffusers' models that matter, since 0.21: whether there are adapters; the configuration."""

_ABSENT = object()


class Changes(NamedTuple):
    """What differs from a snapshot, by name: attributes are put back, what is ``lost`` cannot be."""

    attributes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In a few words: names, what became of them."""
        names = (*self.lost, *self.attributes)
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"{shown}; {'it is loaded anew' if self.lost else 'put back as it was'}"


class Snapshot:
    """The state of a pipeline at one moment."""

    def __init__(self, pipe: Any) -> None:
        self._parts = [(name, part, _attributes(part)) for name, part in _parts(pipe)]
        self._sizes = _vocabularies(pipe)
        self._sums = _checksums(pipe)
        self._pipe = pipe

    def restore(self) -> Changes:
        """Put back what was changed since; says what that was, and what it could not put back."""
        found = []
        for name, part, before in self._parts:
            now = _attributes(part)
            changed = [key for key in before.keys() | now.keys() if _differ(part, key, before, now)]
            for key in sorted(changed):
                found.append(f"{name}.{key}")
                _put_back(part, key, before)
        lost = [name for name, size in _vocabularies(self._pipe).items() if self._sizes.get(name) != size]
        sums = _checksums(self._pipe)
        lost += sorted(name for name in self._sums.keys() | sums.keys() if self._sums.get(name) != sums.get(name))
        return Changes(tuple(found), tuple(lost))


def _parts(pipe: Any) -> Iterator[tuple[str, Any]]:
    """All objects whose attributes count, by name: pipeline, components, modules, processors, configurations."""
    from torch.nn import Module

    yield "pipe", pipe
    for name, component in pipe.components.items():
        modules = component.named_modules() if isinstance(component, Module) else [("", component)]
        for path, part in modules:
            if not hasattr(part, "__dict__"):
                continue
            full = f"{name}.{path}" if path else name
            yield full, part
            processor = vars(part).get("processor")
            if hasattr(processor, "__dict__"):
                yield f"{full}.processor", processor
        config = getattr(component, "config", None)  # transformers' are objects, diffusers' are never changed in place
        if hasattr(config, "__dict__") and not isinstance(config, dict):
            yield f"{name}.config", config


def _attributes(part: Any) -> dict[str, Any]:
    """The attributes that count; containers are copied one level deep."""
    from torch.nn import Module

    torch_keeps = vars(Module()).keys() if isinstance(part, Module) else frozenset()  # children, weights, hooks
    notes = isinstance(part, Module) or hasattr(part, "components")  # what models and pipelines note for themselves
    kept = {}
    for key, value in vars(part).items():
        public = not key.startswith("_") or key in torch_keeps or key in _SWITCHES
        setting = not notes and isinstance(value, _SCALARS) and key not in _OF_A_GENERATION
        if (public and key not in _OF_A_GENERATION) or setting or callable(value):
            kept[key] = value.copy() if type(value) in _COPIED else value
    return {key: value for key, value in kept.items() if not _needless(part, key, value)}


def _needless(part: Any, key: str, value: Any) -> bool:
    """Whether an attribute is a tensor (timesteps; weights lie deeper), or the method that its class has anyway.

    The latter is what is left of a method that was wrapped and assigned back.
    """
    from torch import Tensor

    own = getattr(value, "__self__", None) is part
    return isinstance(value, Tensor) or (own and getattr(value, "__func__", None) is getattr(type(part), key, None))


def _differ(part: Any, key: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    old, new = (state.get(key, getattr(type(part), key, _ABSENT)) for state in (before, now))
    if key == _ADAPTED:
        return bool(old) != bool(new)  # it is False, True, and None once adapters were unloaded
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() != new.keys() or any(not _same(old[name], new[name]) for name in old)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) != len(new) or any(not _same(one, other) for one, other in zip(old, new, strict=True))
    return not _same(old, new)


def _same(old: Any, new: Any) -> bool:
    """Scalars and containers by value, everything else by identity."""
    if old is new:
        return True
    plain = (*_SCALARS, dict, list, tuple, set, frozenset)
    try:
        return isinstance(old, plain) and isinstance(new, plain) and bool(old == new)
    except Exception:  # tensors in a container compare with nothing
        return False


def _put_back(part: Any, key: str, before: dict[str, Any]) -> None:
    attributes = vars(part)
    if key not in before:
        attributes.pop(key, None)
        return
    old, now = before[key], attributes.get(key)
    if type(old) in (dict, OrderedDict) and type(now) is type(old):
        now.clear()  # in place: others know a module's hooks and children by their dictionary
        now.update(old)
    else:
        attributes[key] = old


def _vocabularies(pipe: Any) -> dict[str, int]:
    """Sizes of the tokenizers, which textual inversion grows."""
    return {
        name: len(component) for name, component in pipe.components.items() if hasattr(component, "get_added_vocab")
    }


def _checksums(pipe: Any) -> dict[str, tuple[Any, ...]]:
    """Of every weight its place, type and shape, and the sum of its bits as whole numbers, exact in any order."""
    import torch

    names, kinds, sums = list[str](), list[tuple[Any, ...]](), list[Any]()
    for component, model in pipe.components.items():
        if not isinstance(model, torch.nn.Module):
            continue
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            for i, plain in enumerate(_plain(tensor)):
                names.append(f"{component}.{name}" + (f"[{i}]" if i else ""))
                kinds.append((str(plain.device), plain.dtype, tuple(plain.shape)))
                sums.append(_sum_of_bits(plain))
    by_device: dict[Any, list[int]] = {}
    for i, total in enumerate(sums):
        if total is not None:
            by_device.setdefault(total.device, []).append(i)
    found: list[int | None] = [None] * len(sums)
    for places in by_device.values():  # one transfer for each device, not for each weight
        for i, value in zip(places, torch.stack([sums[i] for i in places]).tolist(), strict=True):
            found[i] = value
    return {name: (*kind, value) for name, kind, value in zip(names, kinds, found, strict=True)}


def _sum_of_bits(tensor: Any) -> Any:
    """A scalar int64 tensor; None for one without content."""
    import torch

    if tensor.is_meta or not tensor.numel():
        return None
    octets = tensor.detach().reshape(-1).view(torch.uint8)
    whole = octets.numel() // 8 * 8  # summed as numbers of eight bytes, which takes no memory besides
    words = octets[:whole] if octets.storage_offset() % 8 == 0 else octets[:whole].clone()
    return words.view(torch.int64).sum() + octets[whole:].sum(dtype=torch.int64)


def _plain(tensor: Any) -> Iterator[Any]:
    """The tensors that a tensor is made of: itself, or a quantized one's parts."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    else:
        yield tensor
