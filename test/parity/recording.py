"""Recorded reference numbers on disk, with a record of which of them a run has used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Leaves that say how a recording was made, not what came out.
PROVENANCE = {
    "note",
    "how",
    "torch",
    "transformers",
    "numpy",
    "reference_commit",
    "matcha_commit",
    "reference_patch",
}


class Recording:
    """One `NAME.safetensors` + `NAME.json` pair (either may be absent).

    Every tensor and every JSON leaf must be read through `tensor` or `meta`; `unused` lists the rest, and the run
    fails on them: a case that nobody checks would otherwise pass in silence.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        tensors = folder / f"{name}.safetensors"
        document = folder / f"{name}.json"
        if not tensors.exists() and not document.exists():
            raise FileNotFoundError(f"no recording {name} in {folder}")
        self._tensors: dict[str, Tensor] = load_file(tensors) if tensors.exists() else {}
        self._json: dict[str, Any] = json.loads(document.read_text("utf-8")) if document.exists() else {}
        self._used_tensors: set[str] = set()
        self._used_meta: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    @property
    def tensor_names(self) -> list[str]:
        return sorted(self._tensors)

    def tensor(self, name: str) -> Tensor:
        """The recorded tensor, noted as used. int32 comes back as int64."""
        if name not in self._tensors:
            raise KeyError(f"{self.name}.safetensors has no tensor {name!r}")
        self._used_tensors.add(name)
        value = self._tensors[name]
        return value.long() if value.dtype in (torch.int32, torch.int64) else value

    def has_meta(self, *path: str) -> bool:
        try:
            self._walk(path)
        except KeyError:
            return False
        return True

    def meta(self, *path: str) -> Any:
        """The JSON value at `path` (below "meta" where the file has one), with all its leaves noted as used."""
        value = self._walk(path)
        self._used_meta.add("\0".join(path))
        return value

    def _walk(self, path: tuple[str, ...]) -> Any:
        value: Any = self._json.get("meta", self._json)
        for key in path:
            if not isinstance(value, dict) or key not in value:
                raise KeyError(f"{self.name}.json has no {'.'.join(path)!r}")
            value = value[key]
        return value

    def header_errors(self) -> list[str]:
        """Disagreements between the JSON's list of shapes and dtypes and the tensors themselves."""
        errors = []
        listed: dict[str, Any] = self._json.get("tensors", {})
        for name, value in self._tensors.items():
            actual = [str(value.dtype).removeprefix("torch."), list(value.shape)]
            if name in listed and listed[name] != actual:
                errors.append(f"{name}: json says {listed[name]}, file has {actual}")
            if "tensors" in self._json and name not in listed:
                errors.append(f"{name}: not listed in the json")
        errors += [
            f"{name}: listed in the json, not in the file" for name in listed if name not in self._tensors
        ]
        return errors

    def unused(self) -> list[str]:
        """Tensors and JSON leaves that no check has read."""
        left = [f"tensor {name}" for name in self._tensors if name not in self._used_tensors]
        for path in _leaves(self._json.get("meta", {k: v for k, v in self._json.items() if k != "tensors"})):
            prefixes = {"\0".join(path[:n]) for n in range(len(path) + 1)}
            if path[-1] not in PROVENANCE and not prefixes & self._used_meta:
                left.append("json " + ".".join(path))
        return left


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all leaves; a list counts as one leaf."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, (*path, key))
    else:
        yield path
