"""Silencing libraries that report on standard error what a run's own report says better."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_AT_IMPORT = tuple(map(logging.getLogger, ("torchao", "torch.utils._pytree")))
"""Loggers that tell, while torchao is imported, of its own build and of its own use of torch."""


@contextmanager
def quiet(level: int = logging.ERROR) -> Iterator[None]:
    """No progress bars, and no message below ``level``, from diffusers, transformers and the import of torchao.

    As before afterwards. Other loggers are left alone. Import the libraries inside for the first time: much of what
    they say, they say then.
    """
    levels = [logger.level for logger in _AT_IMPORT]
    try:
        for logger in _AT_IMPORT:
            logger.setLevel(level)
        with _hugging_face_quiet(level):
            yield
    finally:
        for logger, before in zip(_AT_IMPORT, levels, strict=True):
            logger.setLevel(before)


@contextmanager
def _hugging_face_quiet(level: int) -> Iterator[None]:
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
