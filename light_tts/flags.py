"""From command line, YAML file and preset to a `ServerConfig`. Flags win over the file, the file over the preset."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn, get_type_hints

import yaml

from light_tts.config import Flag, ServerConfig
from light_tts.errors import InvalidInput

# The deployment guide's three scenarios.
PRESETS: dict[str, dict[str, object]] = {
    "throughput": {
        "decode_process_num": 3,
        "decode_max_batch_size": 4,
        "gpt_paral_num": 200,
        "batch_max_tokens": 16384,
        "router_max_wait_tokens": 12,
    },
    "latency": {
        "decode_process_num": 3,
        "decode_max_batch_size": 2,
        "gpt_paral_num": 100,
        "batch_max_tokens": 4096,
        "router_max_wait_tokens": 4,
        "gpt_paral_step_num": 100,
    },
    "memory": {
        "decode_process_num": 2,
        "decode_max_batch_size": 2,
        "max_total_token_num": 32768,
        "mode": ("ppl_int8kv",),
    },
}
_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_HINTS = get_type_hints(ServerConfig)


def config_of(arguments: Sequence[str], *, prog: str = "api_server") -> ServerConfig:
    """The configuration that a command line asks for. Raises InvalidInput; `--help` exits."""
    parser = _Parser(prog=prog, description="The Light-TTS server.", allow_abbrev=False)
    add_flags(parser)
    known, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise InvalidInput(_unknown("flag", unknown[0], [f"--{item.name}" for item in fields(ServerConfig)]))
    return config_from(known)


def config_from(options: argparse.Namespace) -> ServerConfig:
    """The configuration that parsed flags of `add_flags` ask for. Raises InvalidInput."""
    given = {name: value for name, value in vars(options).items() if name in _HINTS}
    file = given.get("config")
    from_file = read_file(file) if isinstance(file, Path) else {}
    preset = given.get("preset", from_file.get("preset"))
    if preset is not None and preset not in PRESETS:
        raise InvalidInput(f"preset is {preset!r}, known are {', '.join(PRESETS)}")
    return make_config({**(PRESETS[str(preset)] if preset is not None else {}), **from_file, **given})


def make_config(values: dict[str, object]) -> ServerConfig:
    """Raises InvalidInput. values: of the right types, by field"""
    return ServerConfig(**values)  # type: ignore[arg-type]  # each was parsed by its field's type


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per field, also spelled with dashes. What is not given is absent from the parsed options."""
    for item in fields(ServerConfig):
        flag: Flag = item.metadata["flag"]
        several = _HINTS[item.name] in (tuple[str, ...], tuple[int, ...])
        choices = f": {', '.join(flag.choices)}" if flag.choices else ""
        default = "" if item.default in (None, ()) else f" (default {item.default})"
        text = f"{flag.help}{choices}{default}".replace("%", "%%")
        dashed = item.name.replace("_", "-")
        for name, told in {
            dashed: argparse.SUPPRESS,
            item.name: text,
        }.items():  # where both are one, told once
            parser.add_argument(
                f"--{name}",
                dest=item.name,
                metavar=_metavar(item.name),
                default=argparse.SUPPRESS,
                nargs="+" if several else None,
                action=_Join if several else _Parse,
                help=told,
            )


def read_file(path: Path) -> dict[str, object]:
    """Options of a YAML file. Raises InvalidInput for what is no option or no fitting value."""
    try:
        loaded = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(f"config file {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"config file {path} is no YAML: {' '.join(str(error).split())}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise InvalidInput(
            f"config file {path} holds a {type(loaded).__name__}, must be lines of `name: value`"
        )
    values: dict[str, object] = {}
    for name, value in loaded.items():
        if name not in _HINTS or name == "config":
            allowed = [field_name for field_name in _HINTS if field_name != "config"]
            raise InvalidInput(f"config file {path}: {_unknown('option', str(name), allowed)}")
        if value is not None:
            values[name] = _parsed(path, name, value)
    return values


def parse(name: str, text: str) -> object:
    """The value of the field `name` that `text` stands for. Raises InvalidInput."""
    kind = _HINTS[name]
    if kind is bool:
        return _boolean(name, text)
    if kind in (int, int | None):
        return _number(name, text, int)
    if kind is float:
        return _number(name, text, float)
    if kind == tuple[int, ...]:
        return tuple(_number(name, part, int) for part in text.replace(",", " ").split())
    if kind == tuple[str, ...]:
        return tuple(text.replace(",", " ").split())
    if kind == Path | None and not text:
        raise InvalidInput(f"{name} is empty")
    return Path(text).expanduser() if kind == Path | None else text


def _parsed(path: Path, name: str, value: object) -> object:
    try:
        return parse(name, _text_of(name, value))
    except InvalidInput as error:
        raise InvalidInput(f"config file {path}: {error}") from error


def _text_of(name: str, value: object) -> str:
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | int | float) for part in parts):
        raise InvalidInput(f"{name} is a {type(value).__name__}, must be a plain value")
    return " ".join(str(part) for part in parts)


def _boolean(name: str, text: str) -> bool:
    if text.lower() in _YES + _NO:
        return text.lower() in _YES
    raise InvalidInput(f"{name} is {text!r}, must be True or False")


def _number(name: str, text: str, kind: Callable[[str], float]) -> float:
    try:
        return kind(text)
    except ValueError as error:
        what = "an integer" if kind is int else "a number"
        raise InvalidInput(f"{name} is {text!r}, must be {what}") from error


def _unknown(what: str, name: str, known: list[str]) -> str:
    spelled = name.partition("=")[0]
    prefix = "--" if spelled.startswith("--") else ""
    near = difflib.get_close_matches(prefix + spelled.removeprefix("--").replace("-", "_"), known, n=1)
    return f"unknown {what} {spelled}" + (f", did you mean {near[0]}?" if near else " (--help lists them)")


def _metavar(name: str) -> str:
    kind = _HINTS[name]
    if kind == Path | None:
        return "FILE" if name == "config" else "DIR"
    if kind is bool:
        return "True|False"
    return "N" if kind in (int, float, int | None, tuple[int, ...]) else "NAME"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as an exception, like every other check of the configuration."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(message)


class _Parse(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, parse(self.dest, str(values)))


class _Join(argparse.Action):
    """For flags that take several values, with spaces or commas between them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        parts = values if isinstance(values, list) else [values]
        setattr(namespace, self.dest, parse(self.dest, " ".join(map(str, parts))))
