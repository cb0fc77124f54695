"""Checked access to the fields of a model's configuration files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from light_tts.errors import CorruptFile, InvalidModelConfig
from light_tts.models.references import BadReference, resolve
from light_tts.models.safe_yaml import MAX_DEPTH, Node, Scalar, Value, read_text, read_yaml

MAX_LIST = 16


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping in a configuration file.

    Every reader raises InvalidModelConfig, naming file, field, value and limit.
    A `default` is returned for a field that is absent or null.
    """

    file: Path
    path: str  # "flow.decoder.", "" at the top level
    entries: dict[str, Node]
    root: Node

    @classmethod
    def from_yaml(cls, file: Path) -> Section:
        return cls._top(file, read_yaml(file))

    @classmethod
    def from_json(cls, file: Path) -> Section:
        try:
            root = _json_node(json.loads(read_text(file)), MAX_DEPTH)
        except (ValueError, RecursionError) as error:
            raise CorruptFile(f"{file} is not usable JSON: {error}") from error
        return cls._top(file, root)

    @classmethod
    def _top(cls, file: Path, root: Node) -> Section:
        if not isinstance(root.value, dict):
            raise InvalidModelConfig(f"{file}: the top level is {_shown(root.value)}, must be a mapping")
        return cls(file, "", root.value, root)

    def fail(self, name: str, reason: str) -> Never:
        """Raise InvalidModelConfig about the field `name`."""
        node = self.entries.get(name)
        where = f" line {node.line}" if node and node.line else ""
        raise InvalidModelConfig(f"{self.file}{where}: {self.path}{name} {reason}")

    def has(self, name: str) -> bool:
        """Whether the field exists and is not null."""
        return name in self.entries and self._resolved(self.entries[name], name).value is not None

    def section(self, name: str, *tags: str) -> Section:
        """The mapping `name`; with `tags` ("new:cosyvoice.llm.llm.Qwen2LM") it must carry one of them."""
        node = self._required(name)
        if tags and node.tag not in tags:
            wanted = " or ".join(f"!{tag}" for tag in tags)
            self.fail(name, f"is {'!' + node.tag if node.tag else 'not tagged'}, must be {wanted}")
        if not isinstance(node.value, dict):
            self.fail(name, f"is {_shown(node.value)}, must be a mapping")
        return Section(self.file, f"{self.path}{name}.", node.value, self.root)

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        if default is not None and not self.has(name):
            return default
        return self._integer(self._required(name), name, low, high)

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        if default is not None and not self.has(name):
            return default
        value = self._required(name).value
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            self.fail(name, f"is {_shown(value)}, must be a number from {low:g} to {high:g}")
        return float(value)

    def integers(self, name: str, low: int, high: int) -> tuple[int, ...]:
        """A list of 1 to MAX_LIST integers."""
        return tuple(self._integer(node, name, low, high) for node in self._list(self._required(name), name))

    def integer_lists(self, name: str, low: int, high: int) -> tuple[tuple[int, ...], ...]:
        """A list of lists of integers, each of 1 to MAX_LIST items."""
        rows = [self._list(node, name) for node in self._list(self._required(name), name)]
        return tuple(tuple(self._integer(node, name, low, high) for node in row) for row in rows)

    def expect(self, name: str, wanted: Scalar, reason: str = "nothing else is supported") -> None:
        """If the field is there, it must have the value `wanted`."""
        if name not in self.entries:
            return
        value = self._required(name).value
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            self.fail(name, f"is {_shown(value)}, must be {wanted!r}: {reason}")

    def _required(self, name: str) -> Node:
        if name not in self.entries:
            self.fail(name, "is missing")
        return self._resolved(self.entries[name], name)

    def _resolved(self, node: Node, name: str) -> Node:
        try:
            return resolve(node, self.root)
        except BadReference as error:
            self.fail(name, str(error))

    def _list(self, node: Node, name: str) -> list[Node]:
        items = self._resolved(node, name).value
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_LIST:
            self.fail(name, f"is {_shown(items)}, must be a list of 1 to {MAX_LIST} values")
        return items

    def _integer(self, node: Node, name: str, low: int, high: int) -> int:
        value = self._resolved(node, name).value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fail(name, f"is {_shown(value)}, must be an integer from {low} to {high}")
        return value


def _shown(value: Value) -> str:
    """A short, single-line form of `value` for an error message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)[:60]


def _json_node(value: object, depth: int) -> Node:
    if depth == 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return Node({str(key): _json_node(item, depth - 1) for key, item in value.items()}, "", 0, 1)
    if isinstance(value, list):
        return Node([_json_node(item, depth - 1) for item in value], "", 0, 1)
    if value is None or isinstance(value, str | int | float):
        return Node(value, "", 0, 1)
    raise ValueError(f"holds a {type(value).__name__}")
