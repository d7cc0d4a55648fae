"""Loading a pipeline: from the hub, from a folder, or with random weights."""

from __future__ import annotations

import functools
import importlib
import json
import textwrap
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError, one_line, origin
from pytest_fluxperf.pipelines import access, integrity, randomflux
from pytest_fluxperf.pipelines.integrity import check_model_folder
from pytest_fluxperf.pipelines.models import ModelInfo
from pytest_fluxperf.pipelines.optimizations.dtype import TORCH_NAMES
from pytest_fluxperf.pipelines.quiet import quiet


def load(info: ModelInfo, dtype: str, device: str) -> Any:
    """A FluxPipeline in ``dtype`` (``fp32``, ``bf16``, ``fp16``) on ``device``, quiet and in evaluation mode.

    Raises :class:`FluxPerfError` when the weights are absent, gated or damaged, or the libraries cannot be imported.
    """
    _import_libraries()
    import torch

    torch_dtype = getattr(torch, TORCH_NAMES[dtype])
    with quiet():
        if info.random:
            pipe = randomflux.build(randomflux.ARCHITECTURES[info.source], torch_dtype, device)
        else:
            pipe = _from_pretrained(info, torch_dtype)
        pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    return pipe


@functools.cache
def _import_libraries() -> None:
    """Import what a pipeline is made of, and tell the garbage collector, once, that it stays.

    A full collection before every measurement takes a quarter of a second otherwise: the libraries' objects are most of
    what it visits.
    """
    import gc

    try:
        import torch  # noqa: F401  # without it, diffusers and transformers import as empty shells

        with quiet():
            from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel  # noqa: F401
            from transformers import CLIPTextModel, T5EncoderModel  # noqa: F401
    except Exception as error:  # whatever a package raises that does not go with the others
        raise FluxPerfError(
            f"the libraries of a FLUX pipeline cannot be imported ({one_line(origin(error))}); see "
            "`fluxperf doctor`, or install them with pip install 'pytest-fluxperf[flux]'"
        ) from error
    gc.collect()
    gc.freeze()


def free(device: str) -> None:
    """Give unused device memory back."""
    import gc

    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def _from_pretrained(info: ModelInfo, torch_dtype: Any) -> Any:
    from diffusers import FluxPipeline

    here = Path(info.source).is_dir()
    try:
        folder = Path(info.source if here else FluxPipeline.download(info.source))
        check_model_folder(folder)
        components, faults = _components(folder, torch_dtype)
        integrity.require_whole(faults)
        return FluxPipeline.from_pretrained(folder, dtype=torch_dtype, **components)
    except FluxPerfError as error:
        raise FluxPerfError(f"model {info.name!r}: {error}") from None
    except Exception as error:
        raise FluxPerfError(f"model {info.name!r}: {_explain(info, error)}") from error


def _components(folder: Path, torch_dtype: Any) -> tuple[dict[str, Any], list[integrity.Fault]]:
    """The components with weights, each loaded by itself, and what is wrong with the keys of their files.

    A pipeline loads them too, but keeps to itself which weights it left random.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    loaded, faults = dict[str, Any](), list[integrity.Fault]()
    for name in integrity.WEIGHTS:
        library, kind = index.get(name) or (None, None)
        if not (library and kind):
            raise FluxPerfError(f"names no {name}, without which there is no picture", file=folder / "model_index.json")
        loaded[name], keys = getattr(importlib.import_module(library), kind).from_pretrained(
            folder / name,
            dtype=torch_dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told with the others
        )
        faults += integrity.faults(folder, name, keys)
    return loaded, faults


def _explain(info: ModelInfo, error: BaseException) -> str:
    """What is wrong and what to do; diffusers wraps the hub's errors, so causes are looked through too."""
    from huggingface_hub import errors

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    text = " ".join(str(link) for link in chain)

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if met(errors.GatedRepoError) or "gated repo" in text:
        return access.gated(info.source)
    if met(errors.RepositoryNotFoundError) or "404 Client Error" in text:
        return access.absent(info.source)
    if met(errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError) or (
        "not fully cached locally" in text or "couldn't connect" in text
    ):
        where = access.lack(info.source) or "is not complete in the local cache"
        return f"{info.source} {where} and the hub cannot be reached: {access.how_to_fetch(info.source)}"
    said = f"cannot be loaded ({textwrap.shorten(str(error), 300, placeholder=' ...')})"
    if Path(info.source).is_dir():
        return f"{info.source} {said}"
    lacking = access.lack(info.source)
    return f"{info.source} {f'{lacking} and ' if lacking else ''}{said}; {access.how_to_fetch(info.source)}"
