"""Model yaml as an inert tree: tags are text, nothing is imported, constructed or evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from light_tts.errors import CorruptFile, InvalidModelConfig, ModelNotFound, UnsafeFile

MAX_FILE_BYTES = 1_000_000  # a released yaml has 9 kB
MAX_NODES = 20_000
MAX_DEPTH = 50

Scalar = str | int | float | bool | None
Value = Scalar | list["Node"] | dict[str, "Node"]

CORE_PREFIX = "tag:yaml.org,2002:"
CORE_TAGS = {"str", "int", "float", "bool", "null", "map", "seq"}
NAMING_TAGS = ("new:", "name:", "apply:")
PLAIN_TAGS = {"ref", "copy", "tuple"}
DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
KNOWN_PREFIXES = ("cosyvoice.", "matcha.", "transformers.", "whisper.")
KNOWN_NAMES = {
    "omegaconf.DictConfig",
    "random.seed",
    "numpy.random.seed",
    "torch.manual_seed",
    "torch.cuda.manual_seed_all",
}

INTEGER = re.compile(r"[-+]?\d{1,18}")
FLOAT = re.compile(
    r"[-+]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][-+]?\d{1,3})?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the file.

    tag: what follows the exclamation mark ("new:cosyvoice.llm.llm.Qwen2LM", "ref"), "" without one
    size: number of nodes here and below, aliases expanded
    """

    value: Value
    tag: str
    line: int
    size: int


def read_text(path: Path) -> str:
    """The file's text. Raises ModelNotFound, CorruptFile (too large, not UTF-8)."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ModelNotFound(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise CorruptFile(f"{path} has more than {MAX_FILE_BYTES} bytes, the limit for a configuration file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is not text: byte {error.start} is not UTF-8") from error


def read_yaml(path: Path) -> Node:
    """Parse `path` into a tree of inert nodes.

    Raises ModelNotFound; CorruptFile if it is not YAML; UnsafeFile, with tag and line, for a tag that would
    construct or run anything outside the model's own packages, or for a file that expands beyond MAX_NODES or
    MAX_DEPTH.
    """
    try:
        node = _Builder(path, yaml.parse(read_text(path), Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise CorruptFile(f"{path} line {line} is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: escapes beyond Unicode
        raise CorruptFile(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    return node


class _Builder:
    """Turns parser events into nodes. Recursion is bounded by MAX_DEPTH, work by MAX_NODES."""

    def __init__(self, path: Path, events: Iterator[yaml.Event]) -> None:
        self.path = path
        self.events = events
        self.anchors: dict[str, Node] = {}
        self.num_nodes = 0

    def document(self) -> Node:
        next(self.events)  # stream start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            raise CorruptFile(f"{self.path} is empty")
        root = self.node(next(self.events), 0)
        next(self.events)  # document end
        if not isinstance(next(self.events), yaml.StreamEndEvent):
            raise CorruptFile(f"{self.path} holds more than one document")
        return root

    def node(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise CorruptFile(f"{self.path} line {line}: alias *{event.anchor} is not defined")
            node = self.anchors[event.anchor]
            self.count(node.size, depth, line)
            return node
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        self.count(1, depth, line)
        tag = self.checked_tag(event.tag, line)
        value, size = self.value(event, tag, depth, line)
        node = Node(value, tag.removeprefix(CORE_PREFIX), line, size)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def count(self, size: int, depth: int, line: int) -> None:
        self.num_nodes += size
        if self.num_nodes > MAX_NODES:
            raise UnsafeFile(f"{self.path} line {line}: the file expands to more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise UnsafeFile(f"{self.path} line {line}: nested deeper than {MAX_DEPTH} levels")

    def value(self, event: yaml.Event, tag: str, depth: int, line: int) -> tuple[Value, int]:
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(child := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(child, depth + 1))
            return items, 1 + sum(item.size for item in items)
        if isinstance(event, yaml.MappingStartEvent):
            entries = self.entries(depth)
            return entries, 1 + sum(entry.size for entry in entries.values())
        assert isinstance(event, yaml.ScalarEvent)
        # Quoted text and tagged text (a `!ref` expression) stay text; only bare words become numbers.
        bare = not event.style and (not tag or (tag.startswith(CORE_PREFIX) and tag != CORE_PREFIX + "str"))
        return (_scalar(event.value) if bare else event.value), 1

    def entries(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent) or event.value == "<<":
                raise InvalidModelConfig(f"{self.path} line {line}: a key must be a plain word")
            self.checked_tag(event.tag, line)
            if event.value in entries:
                raise InvalidModelConfig(f"{self.path} line {line}: key {event.value!r} occurs twice")
            entries[event.value] = self.node(next(self.events), depth + 1)
        return entries

    def checked_tag(self, tag: str | None, line: int) -> str:
        """`tag` without its exclamation mark, "" for none. Raises UnsafeFile unless it is a known one."""
        if tag is None or tag == "!":
            return ""
        if tag.startswith(CORE_PREFIX) and tag.removeprefix(CORE_PREFIX) in CORE_TAGS:
            return tag
        name = tag.removeprefix("!")
        if tag.startswith("!") and (name in PLAIN_TAGS or _is_known_class(name)):
            return name
        shown = tag.replace(CORE_PREFIX, "!!")[:100]
        raise UnsafeFile(f"{self.path} line {line}: tag {shown} asks to construct or run something; refused")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _is_known_class(tag: str) -> bool:
    """Whether a `new:`, `name:` or `apply:` tag names something of the model's own packages or a seed."""
    for prefix in NAMING_TAGS:
        if tag.startswith(prefix):
            name = tag.removeprefix(prefix)
            return bool(DOTTED_NAME.fullmatch(name)) and (
                name in KNOWN_NAMES or name.startswith(KNOWN_PREFIXES)
            )
    return False


def _scalar(text: str) -> Scalar:
    """A bare word's value by YAML 1.2, which unlike 1.1 reads `1e-06` as a number and `no` as text."""
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
