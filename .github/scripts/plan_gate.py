"""Whether a gate starts, and on which GPUs: by the event alone and a file of the base branch.

Repository variables would not do: GitHub hands none to a request from a fork, and whoever may delete one could turn the
gate off without a review. The caller checks out the base branch, so a request cannot shorten the list that gates it.

Reads ``OTHER_EVENT`` (true for a label, title or text that asks for no gate), ``GITHUB_EVENT_NAME``,
``GITHUB_REPOSITORY``, ``ACTION`` and ``HEAD_REPOSITORY`` (what GitHub says of a request, empty where it says nothing);
writes ``start`` (true or false) and ``gpus`` (JSON) to ``$GITHUB_OUTPUT``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

LIST = Path(".github/gpus.json")
MOST = 16
"""GPUs in one list."""


def starts(event: str, action: str, head: str, repository: str) -> bool:
    """Main's own runs and requests of this repository start by themselves, requests from forks by the label ``gpu``.

    A request whose fork was deleted has no ``head`` and counts as one from a fork. ``labeled`` is the label ``gpu``:
    any other is an event that asks for no gate.
    """
    return event != "pull_request" or action == "labeled" or head == repository


def gpus(text: str) -> list[str]:
    """The names in the list.

    Raises:
        ValueError: it is no JSON list of 1 to :data:`MOST` different names of GPUs.
    """
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError('must be a list of names, such as ["h100"]')
    for name in names:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name, re.ASCII):
            raise ValueError(f"{name!r} is no name of a GPU")
    if not 1 <= len(names) == len(set(names)) <= MOST:
        raise ValueError(f"must name 1 to {MOST} different GPUs, not {len(names)}; without one nothing can be gated")
    return names


def main() -> int:
    """The outputs, or the error as GitHub shows it."""
    try:
        listed = gpus(LIST.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        print(f"::error::{LIST} of the base branch: {getattr(error, 'strerror', None) or ascii(error.args[0])}")
        return 1
    names = ("GITHUB_EVENT_NAME", "ACTION", "HEAD_REPOSITORY", "GITHUB_REPOSITORY")
    start = os.environ["OTHER_EVENT"] == "false" and starts(*(os.environ[name] for name in names))
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as outputs:
        outputs.write(f"start={json.dumps(start)}\ngpus={json.dumps(listed)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
