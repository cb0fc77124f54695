"""`!ref <a>`, `!ref <a.b>` and `!ref <a> * <b>` of a model yaml: look-up and arithmetic, no `eval`."""

from __future__ import annotations

import re

from light_tts.models.safe_yaml import Node

MAX_LOOKUPS = 50  # of one field: ends cycles and expressions that double at every step
MAX_TOKENS = 50
MAX_BRACKETS = 10
MAX_RESULT = 1e15
TOKEN = re.compile(r"\s*(<[^<>]{1,100}>|\d{1,15}(?:\.\d{1,15})?(?:[eE][-+]?\d{1,2})?|//|[-+*/()])")


class BadReference(ValueError):
    """An expression that cannot be resolved; the message completes "field ..."."""


def resolve(node: Node, root: Node) -> Node:
    """`node` itself, or what its `!ref` or `!copy` expression stands for. Raises BadReference."""
    return _Resolver(root).resolve(node)


class _Resolver:
    def __init__(self, root: Node) -> None:
        self.root = root
        self.lookups = 0

    def resolve(self, node: Node) -> Node:
        while node.tag in ("ref", "copy"):
            tokens = _tokens(node)
            if len(tokens) > 1 or not tokens[0].startswith("<"):
                return Node(_Arithmetic(self, tokens).result(), "", node.line, 1)
            node = self.look_up(tokens[0])
        return node

    def look_up(self, token: str) -> Node:
        """The unresolved node that `<a>`, `<a.b>` or `<a[b]>` names."""
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise BadReference(f"needs more than {MAX_LOOKUPS} references, or refers to itself")
        node = self.root
        for key in token.strip("<>").replace("[", ".").replace("]", "").split("."):
            entries = node.value
            if not isinstance(entries, dict) or key.strip() not in entries:
                raise BadReference(f"refers to {token}, which does not exist")
            node = entries[key.strip()]
        return node

    def number(self, token: str) -> int | float:
        """The value of a number or of a reference to one."""
        if not token.startswith("<"):
            return int(token) if token.isdigit() else float(token)
        value = self.resolve(self.look_up(token)).value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise BadReference(f"calculates with {token}, which is not a number")
        return value


def _tokens(node: Node) -> list[str]:
    text = node.value if isinstance(node.value, str) else ""
    tokens: list[str] = TOKEN.findall(text[:1000])
    if not 1 <= len(tokens) <= MAX_TOKENS or "".join("".join(tokens).split()) != "".join(text.split()):
        raise BadReference(f"has a reference that is neither <name> nor arithmetic: {text[:60]!r}")
    return tokens


class _Arithmetic:
    """Recursive descent over `+ - * / //` and brackets."""

    def __init__(self, resolver: _Resolver, tokens: list[str]) -> None:
        self.resolver = resolver
        self.tokens = tokens
        self.position = 0
        self.open_brackets = 0

    def result(self) -> int | float:
        value = self.sum()
        if self.position != len(self.tokens) or not abs(value) < MAX_RESULT:
            raise self.error()
        return value

    def error(self) -> BadReference:
        return BadReference(f"has an expression that cannot be calculated: {' '.join(self.tokens)[:60]!r}")

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def sum(self) -> int | float:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> int | float:
        value = self.atom()
        while self.peek() in ("*", "/", "//"):
            operator, right = self.take(), self.atom()
            if operator == "*":
                value = value * right
            elif right == 0:
                raise BadReference("divides by zero")
            else:
                value = value / right if operator == "/" else value // right
        return value

    def atom(self) -> int | float:
        token = self.take()
        if token == "-":
            return -self.atom()
        if token == "(":
            return self.bracket()
        if not token or not (token[0] == "<" or token[0].isdigit()):
            raise self.error()
        return self.resolver.number(token)

    def bracket(self) -> int | float:
        self.open_brackets += 1
        if self.open_brackets > MAX_BRACKETS:
            raise self.error()
        value = self.sum()
        if self.take() != ")":
            raise self.error()
        return value
