"""Performance and quality regression gates for diffusion inference, as a pytest plugin.

What a project's own conftest imports is here; every other module is private and may change with any release. A name is
loaded when it is asked for, so that importing the package costs nothing.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "errors": ("FluxPerfError", "Unavailable"),
    "pipelines.models": ("Defaults",),
    "pipelines.optimizations.base": (
        "Applied",
        "Host",
        "Optimization",
        "Stage",
        "needs_cuda",
        "needs_package",
        "register",
    ),
    "pipelines.optimizations.stepcache": ("StepCache",),
    "quality.custom_metrics": ("PictureMetric",),
    "recipe": ("Field", "Recipe", "Token", "TokenSpec", "choice", "integer", "nonempty", "number"),
    "results": ("Result",),
}
"""Where each public name is defined; ``__init__.pyi`` tells type checkers the same."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
