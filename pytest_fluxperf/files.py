"""Files that other processes, or other people, may have a hand in: written whole, locked, never through a link."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_fluxperf.errors import FluxPerfError

_SUFFIX = ".tmp"
_ABANDONED_S = 3600.0
"""Age at which a temporary file has no writer any more."""


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds the old content or all of the new, also after a crash; raises OSError.

    What a writer of the same file left behind that was killed is removed.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=_SUFFIX)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    clear_abandoned(path.parent, _prefix(path))


def clear_abandoned(folder: Path, prefix: str = ".", *, age_s: float = _ABANDONED_S) -> None:
    """Remove temporary files in ``folder`` that are older than ``age_s``: their writers were killed."""
    for left in folder.glob(f"{prefix}*{_SUFFIX}"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime >= age_s:
                left.unlink()


def is_there(path: Path | str) -> bool:
    """Whether there is such a file or folder; a name that no file can have names none."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, no such home, a null character
        return False


def _prefix(path: Path) -> str:
    return f".{path.name[:100]}."


def is_link_or_no_file(path: Path) -> bool:
    """Whether ``path`` is there and is no plain file: a link, a folder, a pipe."""
    return path.is_symlink() or (path.exists() and not path.is_file())


@contextmanager
def locked(path: Path, timeout_s: float = -1.0) -> Iterator[None]:
    """Hold the lock of the file ``path``; waits for ever unless there is a ``timeout_s``.

    Raises TimeoutError when another process holds it that long, and FluxPerfError when it cannot be a lock: it is a
    link or a folder, or its folder takes no files.
    """
    import filelock

    lock = filelock.FileLock(path, timeout=timeout_s)
    try:
        if is_link_or_no_file(path):
            raise FluxPerfError("is no plain file and cannot be locked", remedy="remove it", file=path)
        lock.acquire()
    except filelock.Timeout:
        raise TimeoutError(errno.ETIMEDOUT, "another process holds it", str(path)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise FluxPerfError(f"cannot be locked: {reason}", remedy="make its folder writable", file=path) from None
    try:
        yield
    finally:
        lock.release()
