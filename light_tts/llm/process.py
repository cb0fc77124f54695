"""The language model process: its model and sockets around `LlmService`, in one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil
import torch
import zmq

from light_tts.child import Control
from light_tts.config import ServerConfig
from light_tts.errors import GenerationFailed, InvalidInput
from light_tts.llm.backend import LlmBackend, choose_backend
from light_tts.llm.device_engine import DeviceEngine
from light_tts.llm.engine import Engine, FailedEvent
from light_tts.llm.packed_weights import PackedWeights
from light_tts.llm.request import LengthLimits, SequenceRequest
from light_tts.llm.service import LlmService
from light_tts.llm.tuned_plan import measured_plan
from light_tts.messages import Message, Stage, ToLlm
from light_tts.models.bundled import resolve_model_dir
from light_tts.models.config import SamplingConfig
from light_tts.models.kv_cache import kv_bytes_per_token
from light_tts.models.loader import device_of, dtype_of, load_speech_lm
from light_tts.models.model_yaml import read_model_config
from light_tts.models.speech_lm import SpeechLM
from light_tts.observe import metrics
from light_tts.threads import use_threads
from light_tts.transport import Inbox, Outbox, address

logger = logging.getLogger(__name__)

WAIT_S = 0.2  # the main loop turns at least so often
MAX_MESSAGES = 1000  # handled per turn
# Prompt tokens per step where --batch_max_tokens is not given: running speech waits for them, on a CPU some 60 ms.
PREFILL_TOKENS = {"cpu": 512, "cuda": 2048}
WARM_UP_TEXT = 8
GRAPH_BYTES = 256 << 20  # graphs, what they compute in, and the matrix library's own


class LlmProcess:
    def __init__(
        self,
        run_dir: Path,
        index: int,
        engine: Engine,
        sampling: SamplingConfig,
        info: dict[str, str],
    ) -> None:
        """sampling: the model's own values"""
        self._info = info
        self._outbox = Outbox()
        self._service = LlmService(
            engine,
            sampling,
            metrics(),
            self._send,
            address=lambda stage, number: address(run_dir, stage, number),
            forget=self._outbox.forget,
        )
        here = address(run_dir, Stage.LLM, index)
        self._inbox: Inbox[ToLlm] = Inbox(here, ToLlm)  # type: ignore[arg-type]  # a union is no class

    @property
    def service(self) -> LlmService:
        return self._service

    def info(self) -> dict[str, str]:
        return self._info

    def run(self, control: Control) -> None:
        """Until `control.stopping`. Raises Unavailable when the GPU is lost."""
        try:
            while not control.stopping:
                for message in self._received():
                    self._service.handle(message)
                self._service.expire()
                self._service.step()
                self._outbox.forget_silent()
                load = self._service.load()
                control.beat(load.queued, load.oldest_s, load.running)
        finally:
            self._inbox.close()
            self._outbox.close()

    def _received(self) -> Iterator[ToLlm]:
        """What has come; waits for the first where there is nothing else to do."""
        wait_s = WAIT_S if self._service.is_idle() else 0.0
        for _ in range(MAX_MESSAGES):
            try:
                message = self._inbox.receive(wait_s)
            except msgspec.MsgspecError:
                logger.exception("dropped a message that is none")
                continue
            if message is None:
                return
            yield message
            wait_s = 0.0

    def _send(self, to: str, message: Message) -> None:
        try:
            self._outbox.send(to, message)
        except zmq.ZMQError:  # no address at all; one where nobody listens is none of our business
            logger.exception("cannot send to %r", to)


def create(config: ServerConfig, run_dir: Path, index: int) -> LlmProcess:
    """Raises errors of `light_tts.errors.ModelError`, InvalidInput for a KV pool that memory does not hold, and
    GenerationFailed for a model that gives no numbers.
    """
    device, dtype = device_of(config.device_of(Stage.LLM, index)), dtype_of(config.dtype)
    use_threads(1)  # a step is many small operators: meeting costs more than a second thread saves
    folder = resolve_model_dir(config.model_dir)
    llm = read_model_config(folder).llm
    model = load_speech_lm(folder, llm, device, dtype).prepare()
    dtype_name = str(model.dtype).removeprefix("torch.")
    backend = choose_backend(config.mode, str(device), dtype_name)
    pool_bytes = config.max_total_token_num * kv_bytes_per_token(llm.qwen, model.dtype, int8=config.int8_kv)
    check_pool(config, pool_bytes, available_bytes(config, device) - step_bytes(config, model, backend))
    for note in backend.notes:
        logger.info("%s", note)
    engine = engine_of(config, model, backend)
    warm_up(engine)
    info = {
        "device": str(device),
        "dtype": dtype_name,
        "step": backend.step,
        "attention": backend.attention,
        "kv_cache": backend.kv_cache,
        "kv_pool_mb": str(pool_bytes >> 20),
        "prefill_tokens_per_step": str(prefill_tokens(config, device)),
    }
    return LlmProcess(run_dir, index, engine, llm.sampling, info)


def engine_of(config: ServerConfig, model: SpeechLM, backend: LlmBackend) -> Engine:
    if backend.step == "device":
        engine = _engine(partial(DeviceEngine, plan=measured_plan(model)), config, model, backend)
        engine.capture()
        return engine
    return _engine(Engine, config, model, backend)


E = TypeVar("E", bound=Engine)


def _engine(kind: Callable[..., E], config: ServerConfig, model: SpeechLM, backend: LlmBackend) -> E:
    return kind(
        model,
        config.max_total_token_num,
        config.gpt_paral_num,
        max_prefill_tokens=prefill_tokens(config, model.device),
        int8_kv=backend.kv_cache == "int8",
        max_sequence_tokens=config.max_req_total_len,
        admit_every=config.router_max_wait_tokens,
        yield_after=config.gpt_paral_step_num,
        max_of_group=config.places_of_request,
    )


def prefill_tokens(config: ServerConfig, device: torch.device) -> int:
    return PREFILL_TOKENS[device.type] if config.batch_max_tokens is None else config.batch_max_tokens


def available_bytes(config: ServerConfig, device: torch.device) -> int:
    """What the KV pool may take. On a CPU that is all memory: pages that nobody has written to take none."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().total)
    free, total = torch.cuda.mem_get_info(device)
    sharers = sum(child.device == str(device) for child in config.children())
    share = config.gpu_memory_fraction * total / max(1, sharers)
    return round(min(free, share - torch.cuda.memory_reserved(device)))


def step_bytes(config: ServerConfig, model: SpeechLM, backend: LlmBackend) -> int:
    """What the step takes beside the model and the KV pool."""
    if backend.step != "device":
        return 0
    longest = min(config.max_total_token_num, config.max_req_total_len)
    return PackedWeights.bytes_beside(model, longest) + GRAPH_BYTES


def check_pool(config: ServerConfig, pool_bytes: int, available: int) -> None:
    if pool_bytes > available:
        raise InvalidInput(
            f"max_total_token_num is {config.max_total_token_num}: the KV pool would take {pool_bytes / 2**30:.1f} GB, "
            f"there are {available / 2**30:.1f} GB (--max_total_token_num, --mode ppl_int8kv)"
        )


def warm_up(engine: Engine) -> None:
    """Generate once, so that the first client waits for no one-time work. Raises GenerationFailed."""
    engine.add(SequenceRequest((0,) * WARM_UP_TEXT, limits=LengthLimits(1, 1)))
    while not engine.is_idle():
        for event in engine.step():
            if isinstance(event, FailedEvent):
                raise GenerationFailed(f"the language model cannot be used: {event.error}")
