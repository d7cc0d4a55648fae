"""GitHub's expressions, as far as the workflows use them: https://docs.github.com/en/actions/reference/evaluate-expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<name>[A-Za-z_][\w.-]*)|(?P<sign>&&|\|\||==|!=|[!(),]))")


def evaluate(expression: str, contexts: Mapping[str, Any], status: Mapping[str, bool] | None = None) -> Any:
    """The value of an expression; ``status`` holds what ``success()`` and its like say."""
    return _Parser(expression, contexts, status or {}).value()


def fill(text: str, contexts: Mapping[str, Any]) -> str:
    """``text`` with every ``${{ … }}`` replaced by its value, as a string."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: string(evaluate(match[1], contexts)), text, flags=re.DOTALL)


def string(value: Any) -> str:
    """A value as GitHub writes it into text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


class _Parser:
    def __init__(self, text: str, contexts: Mapping[str, Any], status: Mapping[str, bool]) -> None:
        self.contexts, self.status = contexts, status
        self.tokens: list[tuple[str, str]] = []
        position, text = 0, text.strip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            assert match, f"what is {text[position:]!r}?"
            assert match.lastgroup
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()

    def value(self) -> Any:
        found = self.either()
        assert not self.tokens, f"left over: {self.tokens}"
        return found

    def take(self, *signs: str) -> str | None:
        if self.tokens and self.tokens[0][0] == "sign" and self.tokens[0][1] in signs:
            return self.tokens.pop(0)[1]
        return None

    def either(self) -> Any:
        left = self.both()
        while self.take("||"):
            right = self.both()
            left = left or right
        return left

    def both(self) -> Any:
        left = self.comparison()
        while self.take("&&"):
            right = self.comparison()
            left = left and right
        return left

    def comparison(self) -> Any:
        left = self.single()
        while sign := self.take("==", "!="):
            left = _equal(left, self.single()) == (sign == "==")
        return left

    def single(self) -> Any:
        if self.take("!"):
            return not self.single()
        if self.take("("):
            found = self.either()
            assert self.take(")")
            return found
        kind, text = self.tokens.pop(0)
        if kind == "text":
            return text[1:-1].replace("''", "'")
        assert kind == "name", f"unexpected {text}"
        if self.take("("):
            return self.call(text)
        if text in ("true", "false", "null"):
            return json.loads(text)
        found: Any = self.contexts
        for part in text.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def call(self, name: str) -> Any:
        arguments: list[Any] = []
        while not self.take(")"):
            arguments.append(self.either())
            self.take(",")
        if name in ("always", "success", "failure", "cancelled"):
            return self.status[name]
        functions: dict[str, Callable[..., Any]] = {
            "fromJSON": json.loads,
            "startsWith": lambda text, start: string(text).lower().startswith(string(start).lower()),
            "format": lambda text, *values: text.format(*map(string, values)),
        }
        return functions[name](*arguments)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.lower() == right.lower()
    if type(left) is type(right):
        return bool(left == right)
    return _number(left) == _number(right)


def _number(value: Any) -> float:
    if value is None or value == "":
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
