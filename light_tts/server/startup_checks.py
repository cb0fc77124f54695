"""What would keep the server from working, found before any process is started."""

from __future__ import annotations

import logging
import socket
import zipfile
from collections import Counter
from pathlib import Path

import psutil

from light_tts.config import ServerConfig
from light_tts.encode.frontend import check_sounds
from light_tts.encode.lexicon import Lexicon
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.encode.tokenizer_files import read_tokenizer_files
from light_tts.errors import CorruptFile, InvalidInput, LightTTSError, ModelNotFound
from light_tts.messages import Stage
from light_tts.models.model_yaml import QWEN_DIR, find_model_yaml, read_model_config
from light_tts.server.placement import gpu_memory

logger = logging.getLogger(__name__)

GB = 1e9
_BASE_BYTES = {Stage.ENCODE: 0.35 * GB, Stage.LLM: 0.35 * GB, Stage.DECODE: 0.35 * GB}  # libraries, measured
_PARTS = {Stage.LLM: ("llm",), Stage.DECODE: ("flow", "hift")}


class NotEnoughMemory(LightTTSError):
    code = "not_enough_memory"


class PortTaken(InvalidInput):
    code = "port_taken"


def check_port(host: str, port: int) -> None:
    """Raises PortTaken, or InvalidInput for an address that this machine does not have."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise InvalidInput(f"host {host!r} is no address: {error.strerror}") from error
    except PermissionError as error:
        raise InvalidInput(f"port {port} is only for the superuser (--port)") from error
    except OSError as error:
        if error.errno == 98:  # EADDRINUSE
            raise PortTaken(f"port {port} of {host} is taken by another process (--port)") from error
        raise InvalidInput(f"cannot listen on {host}:{port}: {error.strerror} (--host, --port)") from error


def check_model_dir(model_dir: Path) -> None:
    """Raises errors of `light_tts.errors.ModelError` that name the file which is missing or cannot be used.

    Weights are not read: whether they fit the yaml is for the processes that load them.
    """
    version, _ = find_model_yaml(model_dir)
    read_model_config(model_dir)
    read_tokenizer_files(model_dir / QWEN_DIR)
    for part in ("llm", "flow", "hift"):
        _check_weights(_checkpoint(model_dir, part))
    for name in ("campplus.onnx", f"speech_tokenizer_v{version}.onnx"):
        if not (model_dir / name).is_file():
            raise ModelNotFound(f"{model_dir} holds no {name}")
        if (model_dir / name).stat().st_size == 0:
            raise CorruptFile(f"{model_dir / name} is empty")


def check_voices_dir(folder: Path | None) -> None:
    """Raises InvalidInput for what is no folder. One that is missing may come later, so that is only said."""
    if folder is None or folder.is_dir():
        return
    if folder.exists():
        raise InvalidInput(f"voices_dir {folder} is no folder (--voices_dir)")
    logger.warning("voices_dir %s does not exist: there are no registered voices", folder)


def check_lexicon(path: Path | None, model_dir: Path) -> None:
    """Raises InvalidLexicon, with file and line."""
    if path is None:
        return
    lexicon = Lexicon.read(path)
    version = read_model_config(model_dir).version
    check_sounds(lexicon, TextTokenizer.from_model_dir(model_dir / "CosyVoice-BlankEN", version))
    logger.info("lexicon %s: %d words", path, len(lexicon.entries))


def check_memory(config: ServerConfig, model_dir: Path) -> None:
    """Raises NotEnoughMemory where weights, KV pool and libraries cannot fit, by the sizes of the files."""
    needed: Counter[str] = Counter()
    for child in config.children():
        needed["cpu"] += round(_BASE_BYTES[child.stage])
        weights = sum(_checkpoint(model_dir, part).stat().st_size for part in _PARTS.get(child.stage, ()))
        if child.stage is Stage.ENCODE:
            weights = sum(path.stat().st_size for path in model_dir.glob("*.onnx"))
        if child.stage is Stage.LLM:
            weights += _kv_pool_bytes(config, model_dir)
        needed[child.device] += weights
    available = {"cpu": _available_bytes()}
    for gpu in gpu_memory(config.num_gpus or 0):
        available[f"cuda:{gpu.index}"] = min(gpu.free, round(config.gpu_memory_fraction * gpu.total))
    for device, number in needed.items():
        if device in available and number > available[device]:
            raise NotEnoughMemory(
                f"{device} needs about {number / GB:.1f} GB for the model and {config.max_total_token_num} KV tokens, "
                f"{available[device] / GB:.1f} GB are free (--decode_process_num, --max_total_token_num, --mode "
                "ppl_int8kv, --preset memory)"
            )


def _checkpoint(model_dir: Path, part: str) -> Path:
    for name in (f"{part}.safetensors", f"{part}.pt"):
        if (model_dir / name).is_file():
            return model_dir / name
    raise ModelNotFound(f"{model_dir} holds neither {part}.safetensors nor {part}.pt")


def _check_weights(path: Path) -> None:
    if path.stat().st_size == 0:
        raise CorruptFile(f"{path} is empty")
    if path.suffix == ".pt" and not zipfile.is_zipfile(path):  # its table of contents is at the end
        raise CorruptFile(f"{path} is truncated or no file of torch.save")


def _kv_pool_bytes(config: ServerConfig, model_dir: Path) -> int:
    qwen = read_model_config(model_dir).llm.qwen
    head_dim = qwen.hidden_size // qwen.num_attention_heads
    number = 1 if config.int8_kv else (2 if config.dtype in ("bfloat16", "float16") else 4)
    return (
        2 * config.max_total_token_num * qwen.num_hidden_layers * qwen.num_key_value_heads * head_dim * number
    )


def _available_bytes() -> int:
    """Of this machine, or of the container if that has less."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("ascii"))
        cache = _cgroup_cache_bytes()
        return min(available, int(limit) - used + cache) if limit != "max" else available
    except (OSError, ValueError):
        return available


def _cgroup_cache_bytes() -> int:
    """Pages of files that the kernel gives back when memory is short."""
    for line in Path("/sys/fs/cgroup/memory.stat").read_text("ascii").splitlines():
        name, _, number = line.partition(" ")
        if name == "inactive_file":
            return int(number)
    return 0
