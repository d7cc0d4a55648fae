"""Silencing libraries that report on standard error what a run's own report says better."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(level: int = logging.ERROR) -> Iterator[None]:
    """No progress bars, and no message below ``level``, from diffusers and transformers; as before afterwards."""
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    libraries = (diffusers, transformers)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity(level)
            library.disable_progress_bar()
        yield
    finally:
        for library, (verbosity, progress) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if progress:
                library.enable_progress_bar()
