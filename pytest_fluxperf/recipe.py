"""The recipe grammar: text ⇄ :class:`Recipe`.

A recipe says how one pipeline is run. It is a sum of tokens, each ``name[:value[,option=value...]]``::

    bf16+fa2+fp8+compile+fbcache:0.3

One dtype (always named), at most one token of every other family, any number of switches. A *whole* recipe
(``fastest``) stands alone and becomes an ordinary one when the device is known. ``+``, ``,``, ``=``, ``%`` and
spaces inside a value (a file's path) are written as ``%XX``.

Every recipe has one canonical spelling, :func:`str` of it, which names baselines: families in the order of
:data:`FAMILIES`, switches by name, defaults left out, numbers in their shortest form. Tokens come from
:func:`register`; the built-in ones register themselves when the first recipe is parsed.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import math
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_fluxperf.errors import FluxPerfError

Value = str | int | float
"""What a token's value or option can be."""

FAMILIES = ("whole", "dtype", "attention", "cache", "quantization", "compile", "parallel", "switch")
"""Families of tokens in the order of the canonical spelling."""

_BUILTIN_TOKENS = "pytest_fluxperf.pipelines.optimizations"
# Named, not imported: this module stands below the optimizations, which register their tokens here.


@dataclass(frozen=True)
class Field:
    """The value of a token, or one of its options.

    ``read`` turns text into a value and raises :class:`ValueError` with the reason. ``default`` is what holds when
    the field is not written; None means that it is absent then, or an error if ``required``.
    """

    name: str
    read: Callable[[str], Value]
    summary: str
    default: Value | None = None
    required: bool = False

    @property
    def choices(self) -> tuple[str, ...]:
        """The names that it may be, where :func:`choice` reads it."""
        return getattr(self.read, "choices", ())


@dataclass(frozen=True)
class TokenSpec:
    """How one token is written and what it may stand beside.

    ``conflict`` gets the token and the whole recipe and returns why that combination is impossible on any machine,
    or None. ``default`` marks the token that says what holds anyway (``sdpa``): the canonical spelling leaves it out.
    ``lossless`` is False for what changes the picture by design.
    """

    name: str
    family: str
    summary: str
    value: Field | None = None
    options: tuple[Field, ...] = ()
    lossless: bool = True
    default: bool = False
    conflict: Callable[[Token, Recipe], str | None] | None = None

    @property
    def usage(self) -> str:
        """The token's spelling for people, what may be left out in brackets: ``teacache:T[,computed=...]``."""
        required: list[str] = []
        optional: list[str] = []
        if self.value is not None:
            (required if self.value.required else optional).append(_placeholder(self.value, self.value.name))
        for field in self.options:
            (required if field.required else optional).append(f"{field.name}={_placeholder(field, '...')}")
        text = self.name + (":" + ",".join(required) if required else "")
        return text + (f"[{',' if required else ':'}{','.join(optional)}]" if optional else "")


@dataclass(frozen=True)
class Token:
    """One token of a recipe; fields that were not written hold their defaults (absent ones are left out)."""

    name: str
    value: Value | None = None
    options: tuple[tuple[str, Value], ...] = ()

    def option(self, name: str) -> Value | None:
        """The option's value, or None when it was not written and has no default."""
        return dict(self.options).get(name)

    @property
    def spec(self) -> TokenSpec:
        """The registered specification."""
        return _REGISTRY[self.name]

    @property
    def family(self) -> str:
        """One of :data:`FAMILIES`."""
        return self.spec.family

    def __str__(self) -> str:
        spec = self.spec
        written = []
        if spec.value is not None and self.value is not None and self.value != spec.value.default:
            written.append(_spell(self.value))
        defaults = {field.name: field.default for field in spec.options}
        written += [f"{name}={_spell(value)}" for name, value in self.options if value != defaults[name]]
        return self.name + (":" + ",".join(written) if written else "")


def variants(spec: TokenSpec) -> tuple[Token, ...]:
    """The token once for every choice that its value or an option leaves, the default first.

    Required fields hold their names (``T``), so these tokens are for listing, not for running.
    """
    value: Value | None = None
    if spec.value is not None:
        value = spec.value.name if spec.value.required else spec.value.default
    options = {field.name: field.default for field in spec.options if field.default is not None}
    made = [Token(spec.name, value, tuple(options.items()))]
    if spec.value is not None:
        made += [replace(made[0], value=choice) for choice in spec.value.choices if choice != value]
    for field in spec.options:
        others = [options | {field.name: choice} for choice in field.choices if choice != field.default]
        made += [replace(made[0], options=tuple(other.items())) for other in others]
    return tuple(made)


@dataclass(frozen=True)
class Recipe:
    """Tokens in canonical order; made by :func:`parse`, written by :func:`str`."""

    tokens: tuple[Token, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.tokens))

    def token(self, family: str) -> Token | None:
        """The token of a family, or None (of the switches, the first: ask :meth:`switch` by name)."""
        return next((token for token in self.tokens if token.family == family), None)

    def switch(self, name: str) -> Token | None:
        """The token of that name, or None."""
        return next((token for token in self.tokens if token.name == name), None)

    @property
    def dtype(self) -> str:
        """``fp32``, ``bf16`` or ``fp16``; for a whole recipe, what it runs in on a GPU."""
        token = self.token("dtype")
        return "bf16" if token is None else token.name

    @property
    def lossless(self) -> bool:
        """True when nothing in it changes the picture by design (no step cache, no quantization, ...)."""
        return all(token.spec.lossless for token in self.tokens)

    @property
    def family(self) -> str:
        """The family to report it under: of its one optimization, ``combination`` of several, or ``dtype``."""
        optimizations = [token.family for token in self.tokens if token.family != "dtype"]
        if len(optimizations) > 1 or optimizations == ["whole"]:
            return "combination"
        return optimizations[0] if optimizations else "dtype"


_REGISTRY: dict[str, TokenSpec] = {}


def register(spec: TokenSpec) -> None:
    """Add a token to the grammar.

    Raises :class:`FluxPerfError` when the family is unknown or another token has that name (registering the same
    specification again does nothing).
    """
    if spec.family not in FAMILIES:
        raise FluxPerfError(f"token {spec.name!r}: no family {spec.family!r}; there are {', '.join(FAMILIES)}")
    if not spec.name.replace("_", "").isalnum():
        raise FluxPerfError(f"token {spec.name!r}: a name is letters, digits and underscores")
    if _REGISTRY.setdefault(spec.name, spec) is not spec:
        raise FluxPerfError(f"token {spec.name!r} is registered already")


def unregister(name: str) -> None:
    """Take a token out of the grammar; nothing happens when it is not there."""
    _REGISTRY.pop(name, None)


def specs() -> tuple[TokenSpec, ...]:
    """Every token that can be written, in canonical order."""
    importlib.import_module(_BUILTIN_TOKENS)
    order = {name: index for index, name in enumerate(_REGISTRY)}
    return tuple(sorted(_REGISTRY.values(), key=lambda spec: (FAMILIES.index(spec.family), order[spec.name])))


def parse(text: str, *, dtype: str | None = None) -> Recipe:
    """Read a recipe; ``dtype`` is what it runs in when it names none (else it must), or bf16 if it cannot run in that.

    Raises :class:`FluxPerfError` with the reason: an unknown token or option (with the nearest one), an ill-typed
    value, two tokens of one family, a combination that no machine can run.
    """
    known = {spec.name: spec for spec in specs()}
    try:
        tokens = [_read_token(part.strip(), known) for part in text.split("+")]
        if dtype is not None and not any(token.family in ("whole", "dtype") for token in tokens):
            return _in_dtype(tokens, _read_token(dtype, known), _read_token("bf16", known))
        return _combine(tokens)
    except ValueError as error:
        raise FluxPerfError(str(error), recipe=repr(text)) from None  # quoted: it may be any text


def _in_dtype(tokens: list[Token], usual: Token, other: Token) -> Recipe:
    """``tokens`` in the usual dtype, or in the other one if they go with that alone: fp8 is no recipe in fp32."""
    try:
        return _combine([usual, *tokens])
    except ValueError:
        with contextlib.suppress(ValueError):
            return _combine([other, *tokens])
        raise


def _combine(tokens: list[Token]) -> Recipe:
    seen: dict[str, Token] = {}
    for token in tokens:
        slot = token.name if token.family == "switch" else token.family
        if slot in seen:
            other = seen[slot]
            twice = "twice" if token.name == other.name else f"beside {other.name!r}"
            raise ValueError(f"{token.name!r} stands {twice}; a recipe has one {slot} token")
        seen[slot] = token
    if "whole" in seen:
        if len(tokens) > 1:
            raise ValueError(f"{seen['whole'].name!r} is a whole recipe and stands alone")
    elif "dtype" not in seen:
        raise ValueError(f"it names no dtype; write for instance 'bf16+{'+'.join(map(str, tokens))}'")
    kept = [token for token in tokens if not token.spec.default]
    recipe = Recipe(tuple(sorted(kept, key=lambda token: (FAMILIES.index(token.family), token.name))))
    for token in recipe.tokens:
        reason = token.spec.conflict and token.spec.conflict(token, recipe)
        if reason:
            raise ValueError(reason)
    return recipe


def _read_token(text: str, known: Mapping[str, TokenSpec]) -> Token:
    name, colon, rest = text.partition(":")
    name = name.strip()
    if name not in known:
        what = f"unknown token {name!r}" if name else "an empty token"
        raise ValueError(f"{what}; {_suggestion(name, known)}")
    spec = known[name]
    value: Value | None = None
    options: dict[str, Value] = {}
    if colon:
        fields = {field.name: field for field in spec.options}
        for position, part in enumerate(rest.split(",")):
            key, equals, written = part.partition("=")
            key = key.strip()
            if equals:
                if key not in fields:
                    raise ValueError(f"{name!r} has no option {key!r}; {_suggestion(key, fields)}")
                if key in options:
                    raise ValueError(f"{name!r}: option {key!r} is given twice")
                options[key] = _read(name, fields[key], written)
            elif position == 0 and spec.value is not None:
                value = _read(name, spec.value, part)
            else:
                raise ValueError(f"{name!r} cannot take {part!r}; it is written {spec.usage}")
    if spec.value is not None and value is None:
        value = _default(spec, spec.value)
    for field in spec.options:
        if field.name not in options and (default := _default(spec, field)) is not None:
            options[field.name] = default
    ordered = [(field.name, options[field.name]) for field in spec.options if field.name in options]
    return Token(name, value, tuple(ordered))


def _read(token: str, field: Field, written: str) -> Value:
    try:
        return field.read(urllib.parse.unquote(written.strip(), errors="strict"))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{token!r}: {field.name} {error}, not {written!r}") from None


def _default(spec: TokenSpec, field: Field) -> Value | None:
    if field.required:
        raise ValueError(f"{spec.name!r} needs its {field.name}; it is written {spec.usage}")
    return field.default


def _suggestion(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(known)}" if known else "it has none"


def _placeholder(field: Field, otherwise: str) -> str:
    return otherwise if field.default is None else _spell(field.default)


def _spell(value: Value) -> str:
    """Shortest text that reads back as the value."""
    if isinstance(value, float):
        text = repr(value)
        return text.removesuffix(".0").replace("e+", "e")
    return urllib.parse.quote(str(value), safe="/:@~!$&'()*;?#[]^{}|\\\"<>`") if isinstance(value, str) else str(value)


def number(low: float = 0.0, high: float = math.inf) -> Callable[[str], float]:
    """Reader of a finite number above ``low`` and at most ``high``."""
    bound = f"above {low:g}" + ("" if high == math.inf else f" and at most {high:g}")

    def read(text: str) -> float:
        try:
            value = math.nan if "_" in text else float(text)  # Python's own numbers may have underscores.
        except ValueError:
            value = math.nan
        if not (low < value <= high and math.isfinite(value)):
            raise ValueError(f"must be a number {bound}")
        return value

    return read


def integer(low: int = 0) -> Callable[[str], int]:
    """Reader of a whole number of at least ``low``."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= low):
            raise ValueError(f"must be a whole number of at least {low}")
        return int(text)

    return read


def choice(*names: str) -> Callable[[str], str]:
    """Reader of one of the names."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"must be {' or '.join(names)}")
        return text

    read.choices = names  # type: ignore[attr-defined]
    return read


def nonempty(text: str) -> str:
    """Reader of any text but none."""
    if not text:
        raise ValueError("must not be empty")
    return text
