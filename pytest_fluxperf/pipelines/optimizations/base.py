"""What an optimization is: a token, what it needs, and what it does to a loaded pipeline.

To add one, write a module that calls :func:`register` with an :class:`Optimization`, and have it imported (the
built-in ones are imported by this package; a project's own by its conftest, through the plugin's hook). The module
must not import torch at its top: recipes are parsed where no torch is loaded.
"""

# ruff: noqa: ARG002, ARG005
# (overriding methods inherit their documentation, and callbacks take what the protocol hands them)
from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from importlib import metadata
from typing import Any

from pytest_fluxperf import recipe as grammar
from pytest_fluxperf.errors import Unavailable, one_line
from pytest_fluxperf.pipelines.models import ModelInfo
from pytest_fluxperf.pipelines.out_of_memory import shortage
from pytest_fluxperf.pipelines.quiet import quiet
from pytest_fluxperf.pipelines.steps import StepLog
from pytest_fluxperf.recipe import Recipe, Token, TokenSpec


class Stage(IntEnum):
    """When an optimization is applied; undone in reverse.

    What is expensive comes early, so that recipes that differ later share it: weights are quantized, then blocks
    compiled with their attention back end, then caches hooked around the compiled blocks.
    """

    BASE = 0
    WEIGHTS = 1
    FUSION = 2
    QUANTIZATION = 3
    ATTENTION = 4
    COMPILATION = 5
    CACHE = 6
    DECODING = 7


@dataclass(frozen=True)
class Host:
    """The pipeline that optimizations are applied to."""

    pipe: Any
    info: ModelInfo
    device: str
    steps: StepLog
    num_steps: int
    """Denoising steps that will be asked for."""

    @property
    def transformer(self) -> Any:
        """The pipeline's denoiser."""
        return self.pipe.transformer

    def blocks(self) -> list[Any]:
        """All blocks of the transformer in the order of computation."""
        return [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]


class Applied:
    """An optimization on one pipeline, made by :attr:`Optimization.make`; subclasses override what they need.

    ``__init__`` changes nothing on the pipeline: it only remembers what :meth:`undo` will need.
    """

    def apply(self) -> None:
        """Change the pipeline."""

    def undo(self) -> None:
        """Put everything back, bit for bit; called once, also when :meth:`apply` or a generation broke off."""

    def begin(self) -> None:
        """Forget the previous generation; called before every one."""

    def originals(self) -> Iterable[Any]:
        """Tensors kept for :meth:`undo` alone, which no user of the optimization would hold."""
        return ()

    def facts(self) -> dict[str, Any]:
        """What is really active, JSON-able."""
        return {}

    def problems(self) -> tuple[str, ...]:
        """What was asked for and is not active, after generations; one line each."""
        return ()

    def contradictions(self, ran: Mapping[str, Any]) -> tuple[str, ...]:
        """What is set, but did not run by the facts of a watched step (see ``measure.observe``); one line each."""
        return ()


@dataclass(frozen=True)
class Optimization:
    """A token and its meaning. ``needs`` returns what this environment lacks to run it on ``device``, or None."""

    spec: TokenSpec
    stage: Stage
    make: Callable[[Host, Token], Applied]
    needs: Callable[[Token, Recipe, str], str | None] = lambda token, recipe, device: None
    per_steps: bool = False
    """True when the number of denoising steps enters what is applied."""


_OPTIMIZATIONS: dict[str, Optimization] = {}


def register(optimization: Optimization) -> Optimization:
    """Add an optimization and its token to the grammar; raises :class:`FluxPerfError` when the name is taken."""
    grammar.register(optimization.spec)
    _OPTIMIZATIONS[optimization.spec.name] = optimization
    return optimization


def unregister(name: str) -> None:
    """Take an optimization and its token out again."""
    grammar.unregister(name)
    _OPTIMIZATIONS.pop(name, None)


def optimizations(recipe: Recipe) -> list[tuple[Token, Optimization]]:
    """The recipe's optimizations in the order of application."""
    found = [(token, _OPTIMIZATIONS[token.name]) for token in recipe.tokens if token.name in _OPTIMIZATIONS]
    return sorted(found, key=lambda pair: pair[1].stage)


def needs_package(module: str, install: str) -> str | None:
    """Reason that names the package to install, or None when ``module`` can be found.

    It is not imported, but the package that it is in is.
    """
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # Of the package that the module is in.
        spec = None
    except Exception as error:  # Raised by that package.
        return f"needs the package {install}, but {module.rpartition('.')[0]} does not import: {one_line(error)}"
    # Without an origin it is a bare folder: flash-attn-4 makes one named flash_attn, as another package is called.
    found = spec is not None and spec.origin is not None
    return None if found else f"needs the package {install}, which is not installed"


@contextmanager
def unavailable_on(what: str, package: str | None, error_type: type[Exception] = Exception) -> Iterator[None]:
    """Tell an error of an installed package in one line after ``what``, as :class:`Unavailable`.

    ``package`` is the distribution's name, told with its version. Too little memory is no error of the package.
    """
    try:
        with quiet():
            yield
    except error_type as error:
        if shortage(error) is not None:
            raise
        # The first line only: what follows it is xFormers' account of every operator that it has not.
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200].rstrip(": ")
        version = _version(package)
        known = f" ({package} {version})" if version else ""
        raise Unavailable(f"{what}: {said}{known}") from error


def _version(package: str | None) -> str | None:
    """Version of an installed distribution, where it is known."""
    try:
        return None if package is None else metadata.version(package)
    except metadata.PackageNotFoundError:  # Built from source under another name, or on the path without metadata.
        return None


def needs_cuda(device: str, capability: tuple[int, int] | None = None) -> str | None:
    """Reason why the device is no CUDA GPU of at least that compute capability, or None."""
    at_least = "" if capability is None else f" of compute capability {capability[0]}.{capability[1]} or higher"
    seen = cuda_capability(device)
    if seen is None:
        return f"needs a CUDA GPU{at_least}; the device is {device}"
    if capability is not None and seen < capability:
        return f"needs a CUDA GPU{at_least}; this one has {seen[0]}.{seen[1]}"
    return None


def cuda_capability(device: str) -> tuple[int, int] | None:
    """Compute capability of the device (``cuda``, ``cuda:1``), or None when it is no CUDA GPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return major, minor


class Forwards:
    """Remembers the ``forward`` of modules and puts it back.

    Patched, compiled and hooked forwards are instance attributes that hide the class's method; undoing means that
    the attribute is what it was before, or absent.
    """

    def __init__(self, modules: Iterable[Any]) -> None:
        self._saved = [(module, vars(module).get("forward")) for module in modules]

    def restore(self) -> None:
        """Put every remembered ``forward`` back."""
        for module, forward in self._saved:
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward
