"""Prompt sets: ``default`` (8) and ``extended`` (50), or a file of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_fluxperf.errors import FluxPerfError
from pytest_fluxperf.results import Prompt
from pytest_fluxperf.settings import MAX_SEED

FOLDER = Path(__file__).parent
"""The sets written for FLUX models; a model that speaks another language brings its own folder."""

MAX_PROMPT_CHARS = 100_000


def load(
    source: str | Sequence[str],
    seeds: Sequence[int],
    samples: int | None = None,
    *,
    folder: Path = FOLDER,
    registered: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Prompt, ...]:
    """The generations to make: every prompt with every seed, prompts varying fastest.

    ``source`` is a set's name, a text file (one prompt a line, ``#`` begins a comment line), a JSON-lines
    file (strings, or objects with ``prompt`` and optionally ``seed`` or ``seeds``), or the prompts
    themselves. ``samples`` takes that many; beyond prompts × seeds it goes on with higher seeds, so that no
    picture is made twice. Raises :class:`FluxPerfError` that names the file and line.
    """
    entries = _entries(source, folder, registered or {})
    if not entries:
        raise FluxPerfError("zero prompts; at least one is needed", file=_name(source))
    pairs = [
        Prompt(text=text, seed=seed)
        for position in range(max(len(own or seeds) for _, own in entries))
        for text, own in entries
        if position < len(own or seeds)
        for seed in [(own or seeds)[position]]
    ]
    if samples is None or samples <= len(pairs):
        return tuple(pairs[:samples])
    highest = max(prompt.seed for prompt in pairs)
    while len(pairs) < samples:
        highest += 1
        pairs += [Prompt(text=text, seed=highest) for text, _ in entries]
    return tuple(pairs[:samples])


Entry = tuple[str, tuple[int, ...]]
"""A prompt and its own seeds (none: those of the test)."""


def _entries(source: str | Sequence[str], folder: Path, registered: Mapping[str, Sequence[str]]) -> list[Entry]:
    if not isinstance(source, str):
        return [(_check(text, "prompts"), ()) for text in source]
    if source in registered:
        return [(_check(text, source), ()) for text in registered[source]]
    if source in {path.stem for path in folder.glob("*.txt")}:
        return _read(folder / f"{source}.txt")
    try:
        path = Path(source).expanduser()
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long a name, no such home
        is_file = False
    if is_file:
        return _read(path)
    shown = source if len(source) <= 100 else f"{source[:100]}…"
    sets = sorted({p.stem for p in folder.glob("*.txt")} | set(registered))
    raise FluxPerfError(f"no prompt set or file {shown!r}; there are {', '.join(sets)}, or give a .txt or .jsonl file")


def _read(path: Path) -> list[Entry]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FluxPerfError(f"cannot be read as UTF-8 text ({error})", file=path) from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if path.suffix == ".jsonl":
        return [_json_entry(line, f"{path}:{number}") for number, line in lines]
    return [(_check(line, f"{path}:{number}"), ()) for number, line in lines if not line.startswith("#")]


def _json_entry(line: str, where: str) -> Entry:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FluxPerfError(f"not JSON ({error})", file=where) from None
    if isinstance(value, str):
        return _check(value, where), ()
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise FluxPerfError(
            'must be a string or an object with "prompt", such as {"prompt": "...", "seed": 0}', file=where
        )
    if unknown := set(value) - {"prompt", "seed", "seeds"}:
        raise FluxPerfError(f"unknown key {sorted(unknown)[0]!r}; there are prompt, seed and seeds", file=where)
    if "seed" in value and "seeds" in value:
        raise FluxPerfError("give seed or seeds, not both", file=where)
    seeds = value.get("seeds", [value["seed"]] if "seed" in value else None)
    if seeds is None:
        return _check(value["prompt"], where), ()
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and 0 <= s <= MAX_SEED for s in seeds):
        raise FluxPerfError(f"seeds must be whole numbers from 0 to {MAX_SEED}, one or more", file=where)
    return _check(value["prompt"], where), tuple(seeds)


def _check(text: str, where: str) -> str:
    if not text.strip():
        raise FluxPerfError("an empty prompt", file=where)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise FluxPerfError("a prompt with half a character (a lone surrogate)", file=where)
    if len(text) > MAX_PROMPT_CHARS:
        raise FluxPerfError(f"a prompt of {len(text)} characters; at most {MAX_PROMPT_CHARS} are taken", file=where)
    return text


def _name(source: str | Sequence[str]) -> str:
    return source if isinstance(source, str) else "prompts"
