"""`ServerConfig`: every option of the server, one field per flag; see also `light_tts.flags`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

import msgspec

from light_tts.errors import InvalidInput
from light_tts.messages import Stage

MODES = ("triton_flashdecoding", "triton_int8kv", "ppl_int8kv")
DTYPES = ("auto", "float32", "bfloat16", "float16")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
PRESETS = ("throughput", "latency", "memory")
MAX_PROCESSES = 64
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flag:
    """What the command line tells of a field. low, high: allowed range; open_low: without `low` itself"""

    help: str
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    choices: tuple[str, ...] = ()


def _flag(
    default: T,
    help: str,
    low: float | None = None,
    high: float | None = None,
    *,
    open_low: bool = False,
    choices: tuple[str, ...] = (),
) -> T:
    return field(default=default, metadata={"flag": Flag(help, low, high, open_low, choices)})


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A process below the supervisor. device: "cpu" or "cuda:N", N as CUDA_VISIBLE_DEVICES numbers them"""

    stage: Stage
    index: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Checked when made: raises InvalidInput, which names flag, value and limit.

    What a process reads from RUN_DIR/config.json has no None left in num_gpus, run_dir, model_dir and cpu_threads.
    """

    model_dir: Path | None = _flag(
        None, "CosyVoice2 or CosyVoice3 model directory (default: the bundled voice)"
    )
    host: str = _flag("127.0.0.1", "address to listen on; 0.0.0.0: all")
    port: int = _flag(8080, "port to listen on", 1, 65535)
    encode_process_num: int = _flag(1, "encode processes", 1, MAX_PROCESSES)
    encode_paral_num: int = _flag(4, "texts and voices encoded at once in each encode process", 1, 256)
    decode_process_num: int = _flag(1, "decode processes", 1, MAX_PROCESSES)
    decode_paral_num: int = _flag(1, "batches in flight in each decode process", 1, 64)
    decode_max_batch_size: int = _flag(1, "chunks that a decode process synthesises as one batch", 1, 256)
    gpt_paral_num: int = _flag(50, "sequences that the language model continues at once", 1, 4096)
    gpt_paral_step_num: int = _flag(
        200, "steps after which a running sequence yields its place when others wait", 1, 1_000_000
    )
    max_total_token_num: int = _flag(65536, "tokens in the language model's KV pool", 64, 2**31 - 1)
    max_req_total_len: int = _flag(
        32768, "longest prompt and output of a sequence together, in tokens", 64, 2**31 - 1
    )
    batch_max_tokens: int | None = _flag(
        None,
        "prompt tokens taken in per step of the language model (default: 512 on a CPU, 2048 on a GPU)",
        16,
        2**31 - 1,
    )
    router_max_wait_tokens: int = _flag(8, "decode steps between admissions of waiting sequences", 1, 10_000)
    cache_capacity: int = _flag(200, "voices kept in each encode process", 1, 1_000_000)
    load_trt: bool = _flag(
        True, "TensorRT for the flow estimator where it is installed; else the best other backend"
    )
    mode: tuple[str, ...] = _flag(
        (), "how the language model keeps and reads its KV pool, several", choices=MODES
    )
    httpserver_workers: int = _flag(1, "HTTP worker processes", 1, MAX_PROCESSES)
    log_stats_interval: int = _flag(10, "seconds between statistics lines in the log, 0: none", 0, 86_400)
    config: Path | None = _flag(None, "YAML file with options by the names of the flags; flags win over it")
    preset: str | None = _flag(None, "options for a purpose; file and flags win over it", choices=PRESETS)
    num_gpus: int | None = _flag(
        None, "GPUs to spread over, 0: run on the CPU (default: all that are visible)", 0, 64
    )
    decode_gpus: tuple[int, ...] = _flag(
        (), "GPU of each decode process, cycled (default: see the printed table)", 0, 63
    )
    llm_gpu: int = _flag(0, "GPU of the language model", 0, 63)
    gpu_memory_fraction: float = _flag(
        0.9, "share of a GPU that our processes on it may take", 0, 1, open_low=True
    )
    dtype: str = _flag("auto", "numbers of language model and flow", choices=DTYPES)
    log_level: str = _flag("INFO", "least severity of what is logged", choices=LOG_LEVELS)
    run_dir: Path | None = _flag(
        None, "folder of sockets, state and metrics, removed at exit (default: a fresh one)"
    )
    voices_dir: Path | None = _flag(
        None, "folder of registered voices (default: light-tts/voices in $XDG_DATA_HOME or ~/.local/share)"
    )
    max_voices: int = _flag(1000, "voices that may be registered", 0, 100_000)
    max_voice_mb: float = _flag(
        10.0, "largest file of a voice to be registered, in megabytes", 0, 10_000, open_low=True
    )
    lexicon: Path | None = _flag(
        None, "file of words with their pronunciation, word<TAB>respelling or /sounds/ (default: none)"
    )
    start_timeout_s: float = _flag(600.0, "seconds that a process may take to load its model", 1, 86_400)
    hang_timeout_s: float = _flag(
        60.0, "seconds without a sign of life after which a process is replaced", 1, 86_400
    )
    drain_timeout_s: float = _flag(
        30.0, "seconds that accepted requests may take to finish at SIGTERM", 0, 86_400
    )
    request_timeout_s: float = _flag(300.0, "seconds after which a request is given up", 1, 86_400)
    max_pending: int | None = _flag(
        None,
        "requests accepted and not finished, all workers together (default: 4 * gpt_paral_num)",
        1,
        1_000_000,
    )
    max_text_chars: int = _flag(10_000, "longest text of a request, in characters", 1, 10_000_000)
    bare_stream: str = _flag(
        "audio", "what `stream: true` alone asks /v1/audio/speech for", choices=("audio", "sse")
    )
    max_body_mb: float = _flag(20.0, "largest request body, in megabytes", 0, 10_000, open_low=True)
    max_waiting_audio_mb: float = _flag(
        1000.0,
        "audio that an HTTP worker keeps for clients that have not read it yet, in megabytes",
        1,
        1_000_000,
    )
    max_prompt_s: float = _flag(30.0, "longest reference recording, in seconds", 0.5, 30)
    cpu_threads: int | None = _flag(
        None,
        "CPU threads of each encode, language model and decode process (default: cores / processes)",
        1,
        1024,
    )
    worker_timeout_s: int = _flag(
        300, "seconds after which Gunicorn replaces an HTTP worker that hangs", 1, 86_400
    )
    keep_alive_s: int = _flag(5, "seconds that an idle HTTP connection is kept", 0, 3600)

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item.name, item.metadata["flag"], getattr(self, item.name))
        if self.max_req_total_len > self.max_total_token_num:
            raise InvalidInput(
                f"max_req_total_len is {self.max_req_total_len}, more than the KV pool of {self.max_total_token_num} "
                "holds (--max_total_token_num)"
            )
        if self.num_gpus:
            for name, gpus in (("llm_gpu", (self.llm_gpu,)), ("decode_gpus", self.decode_gpus)):
                if gpus and max(gpus) >= self.num_gpus:
                    raise InvalidInput(
                        f"{name} names GPU {max(gpus)}, there are {self.num_gpus}, counted from 0"
                    )

    @property
    def int8_kv(self) -> bool:
        """Whether the KV pool holds 8-bit numbers: both names mean it."""
        return "triton_int8kv" in self.mode or "ppl_int8kv" in self.mode

    @property
    def pending_limit(self) -> int:
        return 4 * self.gpt_paral_num if self.max_pending is None else self.max_pending

    @property
    def places_of_request(self) -> int:
        """Sequences of one request that are continued at once: a long text must not keep all others waiting."""
        return max(4, self.gpt_paral_num // 8)

    @property
    def threads_per_process(self) -> int:
        """CPU threads of one encode, LLM or decode process. The encode processes' share is left to the others: they
        work in short bursts.
        """
        if self.cpu_threads is not None:
            return self.cpu_threads
        return max(1, len(os.sched_getaffinity(0)) // (1 + self.decode_process_num))

    def device_of(self, stage: Stage, index: int, num_gpus: int | None = None) -> str:
        """Where a process computes. Decode i is on GPU 1 + i where there are more GPUs than decode processes, so that
        the language model has GPU 0 for itself; else on GPU i % n.
        """
        if num_gpus is None:
            num_gpus = self.num_gpus or 0
        if num_gpus == 0 or stage not in (Stage.LLM, Stage.DECODE):
            return "cpu"
        if stage is Stage.LLM:
            return f"cuda:{self.llm_gpu}"
        if self.decode_gpus:
            return f"cuda:{self.decode_gpus[index % len(self.decode_gpus)]}"
        return f"cuda:{1 + index if num_gpus > self.decode_process_num else index % num_gpus}"

    def children(self) -> list[ChildSpec]:
        """The processes to start, in the order of the table."""
        stages = [
            (Stage.ENCODE, self.encode_process_num),
            (Stage.LLM, 1),
            (Stage.DECODE, self.decode_process_num),
        ]
        return [
            ChildSpec(stage, i, self.device_of(stage, i)) for stage, number in stages for i in range(number)
        ]

    def to_json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self, enc_hook=str), indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> ServerConfig:
        """Raises msgspec.ValidationError or InvalidInput for anything that `to_json` did not write."""
        return msgspec.json.decode(text, type=cls, dec_hook=_path_hook)

    @classmethod
    def read(cls, run_dir: Path) -> ServerConfig:
        """What the supervisor wrote for its children."""
        return cls.from_json((run_dir / "config.json").read_bytes())


def _path_hook(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"no way to read {kind}")


def _check(name: str, flag: Flag, value: object) -> None:
    """Raises InvalidInput unless the value, or each of several, is within the flag's choices and range."""
    for one in value if isinstance(value, tuple) else (value,):
        if one is None:
            continue
        if flag.choices and one not in flag.choices:
            raise InvalidInput(f"{name} is {one!r}, known are {', '.join(flag.choices)}")
        if flag.low is None or flag.high is None or not isinstance(one, int | float):
            continue
        if not flag.low <= one <= flag.high or (flag.open_low and one == flag.low):  # NaN is in no range
            bracket = "(" if flag.open_low else "["
            raise InvalidInput(f"{name} is {one}, allowed is {bracket}{flag.low:g}, {flag.high:g}]")
