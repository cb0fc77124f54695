"""Model directories in the released layout with random weights, of any size."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from light_tts.models.checkpoint import EMBED_TOKENS, LM_HEAD, PARTS, Part, open_checkpoint

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model directory holds, without the numbers. Keys and shapes are those of the released files."""

    version: int
    yaml_text: str
    qwen_config: dict[str, Any]
    shapes: dict[Part, Shapes]


def full_size_manifest(golden: Path, version: int) -> Manifest:
    """The manifest of the released model's size."""
    document = json.loads((golden / f"manifest_cosyvoice{version}.json").read_text("utf-8"))
    modules = document["modules"]
    return Manifest(
        version,
        to_yaml(document["config_raw"]),
        document["qwen2_config_assumed"],
        {part: {k: tuple(v["shape"]) for k, v in modules[part]["state_dict"].items()} for part in PARTS},
    )


def manifest_of(model_dir: Path) -> Manifest:
    """The manifest of an existing directory with `.pt` files."""
    version = 2 if (model_dir / "cosyvoice2.yaml").exists() else 3
    return Manifest(
        version,
        (model_dir / f"cosyvoice{version}.yaml").read_text("utf-8"),
        json.loads((model_dir / "CosyVoice-BlankEN/config.json").read_text("utf-8")),
        {
            part: {k: tuple(v.shape) for k, v in open_checkpoint(model_dir / f"{part}.pt").items()}
            for part in PARTS
        },
    )


def write_random_model(
    folder: Path,
    manifest: Manifest,
    small_files_from: Path,
    *,
    dtype: torch.dtype = torch.float32,
    file_format: Literal["pt", "safetensors"] = "pt",
    seed: int = 0,
) -> Path:
    """Write a model directory; tokenizer and ONNX files are copied from `small_files_from`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"cosyvoice{manifest.version}.yaml").write_text(manifest.yaml_text, "utf-8")
    qwen = folder / "CosyVoice-BlankEN"
    shutil.copytree(
        small_files_from / "CosyVoice-BlankEN",
        qwen,
        ignore=shutil.ignore_patterns("model.safetensors", "config.json"),
        copy_function=shutil.copyfile,
        dirs_exist_ok=True,
    )
    (qwen / "config.json").write_text(json.dumps(manifest.qwen_config), "utf-8")
    for onnx in small_files_from.glob("*.onnx"):
        shutil.copyfile(onnx, folder / onnx.name)
    for index, part in enumerate(PARTS):
        weights = random_weights(manifest.shapes[part], dtype, seed + index)
        if file_format == "pt":
            torch.save(weights, folder / f"{part}.pt")
        else:
            weights.pop(LM_HEAD, None)  # safetensors refuses tensors that share memory
            save_file(weights, folder / f"{part}.safetensors")
    return folder


def random_weights(shapes: Shapes, dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    """Small normal numbers, ones for scales; the language model's unused head is tied to its embedding."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) == 1 and name.endswith(".weight"):  # a norm's scale
            weights[name] = torch.ones(shape, dtype=dtype)
        else:
            weights[name] = torch.empty(shape, dtype=dtype).normal_(0.0, 0.02, generator=generator)
    if LM_HEAD in weights:
        weights[LM_HEAD] = weights[EMBED_TOKENS]
    return weights


def to_yaml(value: Any, indent: int = 0) -> str:
    """The manifests' `config_raw` (tags as `__tag__`, tagged words as text) as yaml."""
    pad = "  " * indent
    lines = []
    for key, item in value.items():
        if key == "__tag__":
            continue
        if isinstance(item, dict):
            arguments = item.get("args") if set(item) == {"__tag__", "args"} else None
            tag = f" {item['__tag__']}" if "__tag__" in item else ""
            lines.append(f"{pad}{key}:{tag}{' ' + _flow_style(arguments) if arguments is not None else ''}")
            if arguments is None:
                lines.append(to_yaml(item, indent + 1))
        else:
            lines.append(f"{pad}{key}: {_flow_style(item)}")
    return "\n".join(line for line in lines if line.strip()) + ("\n" if indent == 0 else "")


def _flow_style(item: Any) -> str:
    if isinstance(item, list):
        return "[" + ", ".join(_flow_style(child) for child in item) + "]"
    if isinstance(item, str):
        bare = item.startswith("!") or item.replace("e-", "").isdigit()  # a tagged word; a number like 1e-06
        return item.strip() if bare else f"'{item}'"
    return json.dumps(item)
