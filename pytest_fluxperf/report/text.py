"""Numbers and foreign text made fit to be read, the same way in every report."""

from __future__ import annotations

import unicodedata

_CONTROL = {c: 0x2400 + c for c in range(0x20)} | {0x7F: 0x2421}
# Invisible characters that reorder or hide text: C1 controls, soft hyphen, fillers, zero width, line and paragraph
# separators, bidirectional marks, overrides and isolates, the byte order mark, annotations, tags; and what XML may not
# hold.
_INVISIBLE = {
    c: f"⟨U+{c:04X}⟩"
    for c in (*range(0x80, 0xA0), 0xAD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x180F), 0x200B,
              *range(0x200E, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0x3164, 0xFEFF, 0xFFA0,
              *range(0xFFF9, 0xFFFC), 0xFFFE, 0xFFFF, *range(0xE0000, 0xE0080))
}  # fmt: skip
_VISIBLE = _CONTROL | _INVISIBLE


def visible(text: str, *, lines: bool = False) -> str:
    """``text`` with every control character shown (U+2400 pictures) and none acting.

    Zero-width joiners stay, emoji are made of them. ``lines`` keeps line breaks, after their picture.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_VISIBLE)
    return shown.replace("\u240a", "\u240a\n") if lines else shown


def printed(text: str, limit: int = 2000) -> str:
    """Foreign ``text`` as one line of a terminal or a log: bounded, nothing in it acts, GitHub sees no command in it.

    A runner takes a line that begins with ``::``, and ``##[`` anywhere, for a command
    (https://docs.github.com/actions/reference/workflow-commands-for-github-actions).
    """
    shown = visible(shorten(text, limit)).replace("##[", "##⟦")
    bare = shown.lstrip()
    return shown if not bare.startswith("::") else f"{shown[: len(shown) - len(bare)]}∷{bare[2:]}"


def shorten(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def decimals(value: float, digits: int) -> str:
    """A number with a fixed count of decimals, never a negative zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def seconds(value: float | None) -> str:
    """Seconds without the unit, to about four significant digits."""
    if value is None:
        return "–"
    return decimals(value, 4 if value < 0.1 else 3 if value < 10 else 2 if value < 100 else 1)


def percent(fraction: float | None, *, sign: bool = True) -> str:
    """A fraction as per cent: 0.061 is ``+6.1 %``."""
    if fraction is None:
        return "–"
    text = decimals(fraction * 100, 1)
    return f"{'+' if sign and not text.startswith('-') and text.strip('0.') else ''}{text} %"


def milliseconds(change: float) -> str:
    """A change in seconds as milliseconds: 0.0211 is ``+21.10``."""
    text = decimals(1000 * change, 2)
    return f"{'+' if not text.startswith('-') and text.strip('0.') else ''}{text}"


def number(value: float | None, digits: int) -> str:
    """A number with a fixed count of decimals, or a dash."""
    return "–" if value is None else decimals(value, digits)


def decimal(value: float | None) -> str:
    """A number with one decimal where it is not whole."""
    return "–" if value is None else decimals(value, 0 if float(value).is_integer() else 1)


def steps(computed: float | None, cached: float | None) -> str:
    """Computed and cached steps per image: ``12 / 16``."""
    if computed is None or cached is None:
        return "–"
    return f"{decimal(computed)} / {decimal(cached)}"


def memory(mib: float | None) -> str:
    """Memory in GiB from 1 GiB on, else MiB; with the unit."""
    if mib is None:
        return "–"
    return f"{mib / 1024:.2f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def plural(n: int, noun: str) -> str:
    """``1 test``, ``2 tests``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def columns(text: str) -> int:
    """Terminal columns that ``text`` takes."""
    return sum(
        0 if unicodedata.combining(c) or c == "\u200d" else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def fit(text: str, width: int, *, right: bool = False) -> str:
    """``text`` padded or cut to ``width`` terminal columns."""
    if columns(text) > width:
        head = _head(text, width - 1)[0]
        text = (head if columns(head) < width else "") + "…"
    pad = " " * (width - columns(text))
    return pad + text if right else text + pad


def wrap(text: str, width: int, limit: int = 4000) -> list[str]:
    """Foreign ``text`` in lines of at most ``width`` terminal columns, each fit to be printed.

    A word longer than a line is cut into pieces; what is beyond ``limit`` characters is left out.
    """
    lines: list[str] = []
    line, used = "", 0
    for word in shorten(visible(shorten(text, limit)), limit).split():
        room = columns(word)
        if line and used + 1 + room <= width:
            line, used = f"{line} {word}", used + 1 + room
            continue
        if line:
            lines.append(line)
        while room > width:
            head, word = _head(word, width)
            lines.append(head)
            room -= columns(head)
        line, used = word, room
    return [printed(line) for line in (*lines, line) if line]


def _head(text: str, width: int) -> tuple[str, str]:
    """As much of ``text`` as ``width`` terminal columns take, at least one character, and the rest."""
    used = 0
    for i, character in enumerate(text):
        used += columns(character)
        if used > width and i:
            return text[:i], text[i:]
    return text, ""


def test_name(node_id: str) -> str:
    """The function of a node id, with its parameters, which may hold anything."""
    path, bracket, parameters = node_id.partition("[")
    return path.rpartition("::")[2] + bracket + parameters
