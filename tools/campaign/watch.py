"""What a call did: came back, refused in one line, or something that it must not."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_fluxperf.errors import FluxPerfError
from tools.campaign.mutate import SECRET

LONGEST_S = 10.0
"""A call that takes longer hangs."""

KINDS = (
    "tracebacks",
    "hangs",
    "foreign reads",
    "foreign writes",
    "injections",
    "false greens",
    "torn files",
    "orphans",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_MOVES = {
    "os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,), "os.symlink": (1,), "os.link": (1,),
    "os.truncate": (0,),
}  # fmt: skip
"""Events of Python's audit that change a folder, and which of their arguments are paths that they change."""
_SYSTEM = ("/dev/", "/proc/", "/sys/")


@dataclass
class Figures:
    """What was tried, and what fell."""

    tried: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    """Of them, what was not refused."""
    fell: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def found(self, kind: str, what: str) -> None:
        """Count something that must not be, with an example to show."""
        self.fell[kind] += 1
        if len(self.examples) < 40:
            self.examples.append(f"{kind}: {what}")

    def lines(self) -> Iterator[str]:
        """All of it, for people."""
        for name, count in self.tried.items():
            read = f" ({self.read[name]} of them not refused)" if name in self.read else ""
            yield f"{count:6} {name}{read}"
        yield ", ".join(f"{self.fell[kind]} {kind}" for kind in KINDS)
        yield from self.examples


def _is_path(value: Any) -> bool:
    return isinstance(value, str | bytes)


class HungError(BaseException):
    """Raised in a call that takes too long."""


class Watch:
    """Sees which files a call opens, outside of the folder that it may use."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self.seen: list[tuple[str, str]] = []
        self._own: str | None = None
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGALRM, self._alarm)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        own = self._own
        if own is None or (event != "open" and event not in _MOVES):
            return
        for path in map(os.fsdecode, (arguments[i] for i in _MOVES.get(event, (0,)) if _is_path(arguments[i]))):
            # what is moved or made is the entry itself, not what a link points to
            real = os.path.realpath(path)
            if event in _MOVES:
                real = str(Path(os.path.realpath(Path(path).parent)) / Path(path).name)
            if real.startswith((own, *_SYSTEM)) or "__pycache__" in real:
                continue
            if event in _MOVES or (isinstance(arguments[2], int) and arguments[2] & _WRITES):
                self.seen.append(("foreign writes", real))
            elif real.endswith(SECRET) or real == "/etc/passwd":
                self.seen.append(("foreign reads", real))

    @staticmethod
    def _alarm(*_: object) -> None:
        raise HungError

    def call(self, name: str, own: Path, what: Callable[[], str]) -> tuple[str, str] | None:
        """What the call wrote and what it printed; None where it refused. What it must not do is counted by kind."""
        self.figures.tried[name] += 1
        self.seen = []
        self._own = os.path.realpath(own)
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
        out = io.StringIO()
        said = None
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                said = what()
        except FluxPerfError as error:
            said = None
            out.write(str(error))
        except HungError:
            self.figures.found("hangs", f"{name} in {own}")
        except SystemExit:
            pass
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            self.figures.found("tracebacks", f"{name}: {type(error).__name__}: {str(error)[:150]!r} at {where}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._own = None
        if time.monotonic() - begun > LONGEST_S + 1:
            self.figures.found("hangs", f"{name}: {time.monotonic() - begun:.0f} s")
        for kind, path in self.seen:
            self.figures.found(kind, f"{name}: {path}")
        if said is None:
            return None
        self.figures.read[name] += 1
        return said, out.getvalue()
