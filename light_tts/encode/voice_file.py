"""The file of one registered voice: a prompt that was encoded once, with what is known about the speaker."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from light_tts.encode.features import PromptFeatures
from light_tts.encode.voice_header import MAX_TEXT, METADATA_KEY, check_info, info_of_bytes
from light_tts.errors import CorruptFile
from light_tts.voice_info import VoiceInfo as VoiceInfo

MAX_TOKENS = 750  # 30 s
MAX_FILE_BYTES = 4_000_000  # 30 s of mel have 480 kB
MEL_BINS = 80
TOKEN_RATE_HZ = 25


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """A speaker to speak with.

    features: with 0 tokens and 0 mel frames if only the speaker embedding is known
    prompt_text_ids: (t,) int64 of the transcript, for an imported voice whose text is unknown
    """

    info: VoiceInfo
    features: PromptFeatures
    prompt_text_ids: Tensor | None = None


def write_voice(voice: Voice, embed_dim: int) -> bytes:
    """The file's content. Raises ValueError if the voice breaks a limit."""
    tensors = _tensors(voice)
    check_info(voice.info)
    check_tensors(tensors, embed_dim)
    return save(tensors, {METADATA_KEY: json.dumps(asdict(voice.info), ensure_ascii=False)})


def read_voice(path: Path, embed_dim: int) -> Voice:
    """Raises CorruptFile; FileNotFoundError."""
    try:
        with path.open("rb") as file:  # read at once: what is replaced meanwhile is not seen in part
            data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                size = path.stat().st_size
                raise CorruptFile(f"{path} has {size} bytes, limit {MAX_FILE_BYTES}")
        info = info_of_bytes(path, data)
        tensors = {name: tensor.clone() for name, tensor in load(data).items()}
        check_tensors(tensors, embed_dim)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptFile(f"{path} is no voice file: {error}") from error
    return voice_of(info, tensors)


def voice_of(info: VoiceInfo, tensors: dict[str, Tensor]) -> Voice:
    """A voice from the tensors that its file holds; they must have passed `check_tensors`."""
    tokens, mel, embedding = (tensors[name] for name in ("speech_token", "prompt_mel", "speaker_embedding"))
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    features = PromptFeatures(tokens, mel, embedding, digest.hexdigest(), len(tokens) / TOKEN_RATE_HZ)
    return Voice(info, features, tensors.get("prompt_text_ids"))


def check_tensors(tensors: dict[str, Tensor], embed_dim: int) -> None:
    """Raises ValueError unless names, types, shapes and numbers are those of a voice."""
    tokens = tensors.get("speech_token", torch.empty(0))
    num_tokens = len(tokens) if tokens.ndim else 0
    wanted: dict[str, tuple[torch.dtype, list[int]]] = {
        "speech_token": (torch.int64, [num_tokens]),
        "prompt_mel": (torch.float32, [2 * num_tokens, MEL_BINS]),
        "speaker_embedding": (torch.float32, [embed_dim]),
    }
    ids = tensors.get("prompt_text_ids")
    if ids is not None:
        wanted["prompt_text_ids"] = (torch.int64, [len(ids) if ids.ndim else 0])
    if tensors.keys() != wanted.keys():
        raise ValueError(f"it holds {sorted(tensors)}, must hold {sorted(wanted)}")
    for name, (dtype, shape) in wanted.items():
        value = tensors[name]
        if value.dtype != dtype or list(value.shape) != shape:
            raise ValueError(f"{name} is {value.dtype} {list(value.shape)}, must be {dtype} {shape}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds numbers that are not finite")
        if not value.is_floating_point() and value.numel() and int(value.min()) < 0:
            raise ValueError(f"{name} holds {int(value.min())}, ids are not negative")
    if num_tokens > MAX_TOKENS:
        raise ValueError(f"it has {num_tokens} speech tokens, limit {MAX_TOKENS}")
    if ids is not None and len(ids) > MAX_TEXT:
        raise ValueError(f"it has {len(ids)} text ids, limit {MAX_TEXT}")


def _tensors(voice: Voice) -> dict[str, Tensor]:
    features = voice.features
    tensors = {
        "speech_token": features.speech_token.contiguous(),
        "prompt_mel": features.prompt_mel.contiguous(),
        "speaker_embedding": features.speaker_embedding.contiguous(),
    }
    if voice.prompt_text_ids is not None:
        tensors["prompt_text_ids"] = voice.prompt_text_ids.contiguous()
    return tensors
