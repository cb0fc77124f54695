"""From checkpoints to a model directory in the released layout, small enough to ship, and checked by the doctor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from light_tts.doctor import Diagnosis, Level, diagnose
from light_tts.models.checkpoint import Part
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.speech_lm import SpeechLM
from light_tts.models.vocoder.hift import HiFT
from recipes.mini import layout
from recipes.mini.encoders import load_frozen
from recipes.mini.errors import RecipeError
from recipes.mini.extract import FACTS_NAME
from recipes.mini.jobs_table import Jobs
from recipes.mini.settings import Settings
from recipes.mini.train import flow, lm, vocoder
from recipes.mini.train.checkpoint import load_latest
from recipes.mini.train.train_state import averaged_weights
from recipes.mini.train.vocoder_step import GENERATOR

MAX_BYTES = 32_000_000
TOKENIZER_ONNX = "speech_tokenizer_v2.onnx"
SPEAKER_ONNX = "campplus.onnx"

# In the released checkpoint these convolutions carry weight norm; the others are plain.
_WEIGHT_NORM = ("conv_pre", "ups.", "source_resblocks.", "resblocks.", "conv_post", "f0_predictor.condnet.")


@dataclass(frozen=True, slots=True)
class Weights:
    """The three modules' weights by the names of `light_tts.models`, float32; vocabulary: text symbols by id."""

    llm: Mapping[str, Tensor]
    flow: Mapping[str, Tensor]
    hift: Mapping[str, Tensor]
    vocabulary: Sequence[str]


@dataclass(frozen=True, slots=True)
class OnnxWriters:
    """Each writes one ONNX file to the path that it is given."""

    tokenizer: Callable[[Path], None]
    speaker: Callable[[Path], None]


def write_model(folder: Path, settings: Settings, weights: Weights, onnx: OnnxWriters) -> Path:
    """Write a model directory; one that was there before is replaced when the new one is whole.

    Voices are not kept: they hold tokens and embeddings of the encoders that made them.
    Raises RecipeError if weights do not fit the settings, or are not finite in half precision.
    """
    partial = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    qwen = partial / layout.QWEN_DIR
    qwen.mkdir(parents=True)
    model = settings.model
    (partial / layout.YAML_NAME).write_text(layout.model_yaml(model), "utf-8")
    (qwen / "config.json").write_text(layout.qwen_config(model), "utf-8")
    ids = {symbol: number for number, symbol in enumerate(weights.vocabulary)}
    (qwen / "tokenizer.json").write_text(layout.tokenizer_json(ids), "utf-8")
    (qwen / "tokenizer_config.json").write_text(layout.tokenizer_config(), "utf-8")
    _save(partial, "llm", weights.llm)
    _save(partial, "flow", weights.flow)
    _save(partial, "hift", with_weight_norm(weights.hift))
    onnx.tokenizer(partial / TOKENIZER_ONNX)
    onnx.speaker(partial / SPEAKER_ONNX)
    shutil.copyfile(Path(__file__).with_name("ATTRIBUTION.md"), partial / "ATTRIBUTION.md")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return folder


def export_model(settings: Settings, work: Path, checkpoints: Path, folder: Path) -> Path:
    """The model directory of what was trained so far, without voices. Raises RecipeError for what is missing.

    checkpoints: of the stages, or their averages alone, CHECKPOINTS/weights
    """
    vocabulary = Jobs(work / "text").vocabulary
    generator = load_latest(checkpoints / vocoder.STAGE)
    if generator is None:
        raise RecipeError(f"{checkpoints / vocoder.STAGE} holds no checkpoint (train vocoder makes it)")
    weights = Weights(
        llm=lm.released_weights(settings, vocabulary, checkpoints),
        flow=flow.released_weights(settings, checkpoints),
        hift=averaged_weights(generator, GENERATOR),
        vocabulary=vocabulary,
    )
    encoders = load_frozen(settings, work, torch.device("cpu"))
    onnx = OnnxWriters(encoders.write_tokenizer, encoders.write_speaker)
    return write_model(folder, with_measured_sampling(settings, work / FACTS_NAME), weights, onnx)


def with_measured_sampling(settings: Settings, facts: Path) -> Settings:
    """The settings with the sampler's window and threshold as the corpus's codes ask for them, if they were counted."""
    if not facts.exists():
        return settings
    measured = json.loads(facts.read_text("utf-8"))
    threshold = min(1.0, float(measured["tau_r"]))  # the largest that a yaml may hold
    model = replace(
        settings.model, sampling_win_size=int(measured["win_size"]), sampling_tau_r=round(threshold, 3)
    )
    return replace(settings, model=model)


def untrained(settings: Settings, vocabulary: Sequence[str], seed: int = 0) -> Weights:
    """Random weights of the right sizes: for speed measurements and dry runs."""
    torch.manual_seed(seed)
    config = settings.model_config()
    modules = SpeechLM(config.llm), Flow(config.flow), HiFT(config.hift)
    llm, flow, hift = (module.state_dict() for module in modules)
    return Weights(llm, flow, hift, vocabulary)


def with_weight_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vocoder's weights by the names of the released checkpoint: magnitude and direction.

    The weight itself serves as direction: only its own rounding is lost in half precision.
    """
    released: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith(".weight") and name.startswith(_WEIGHT_NORM):
            stem = f"{name.removesuffix('.weight')}.parametrizations.weight"
            dims = tuple(range(1, value.ndim))
            released[f"{stem}.original0"] = torch.linalg.vector_norm(value.float(), dim=dims, keepdim=True)
            released[f"{stem}.original1"] = value
        else:
            released[name] = value
    return released


def _save(folder: Path, part: Part, weights: Mapping[str, Tensor]) -> None:
    halves = {name: value.detach().to("cpu", torch.float16, copy=True) for name, value in weights.items()}
    if bad := [name for name, value in halves.items() if not bool(torch.isfinite(value).all())]:
        raise RecipeError(f"{part}: {len(bad)} weights are not finite in half precision, e.g. {bad[0]}")
    path = folder / f"{part}.safetensors"
    save_file({name: value.contiguous() for name, value in halves.items()}, path)
    path.chmod(0o644)  # safetensors makes files for their owner alone


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file, by its path inside the folder, largest first."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def size_table(folder: Path, max_bytes: int = MAX_BYTES) -> str:
    """A Markdown table of the files."""
    sizes = file_sizes(folder)
    rows = [f"| {name} | {size / 1e6:.2f} |" for name, size in sizes.items()]
    total = f"| **all, limit {max_bytes / 1e6:.0f}** | **{sum(sizes.values()) / 1e6:.2f}** |"
    return "\n".join(["| file | MB |", "|---|---|", *rows, total])


def check_model(folder: Path, max_bytes: int = MAX_BYTES) -> Diagnosis:
    """Raises RecipeError if the directory is too large, or if the doctor finds an error."""
    total = sum(file_sizes(folder).values())
    if total > max_bytes:
        raise RecipeError(f"{folder} has {total / 1e6:.2f} MB, limit {max_bytes / 1e6:.0f} MB")
    diagnosis = diagnose(folder)
    errors = [str(finding.message) for finding in diagnosis.findings if finding.level is Level.ERROR]
    if errors:
        raise RecipeError(f"{folder}: the doctor finds {len(errors)} errors: {'; '.join(errors)}")
    return diagnosis
