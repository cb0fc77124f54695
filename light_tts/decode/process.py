"""The decode process: sockets and threads around `DecodeService`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch
import zmq

from light_tts.child import Control
from light_tts.config import ServerConfig
from light_tts.decode.backend import (
    GRAPHS,
    TENSORRT,
    FlowBackend,
    announce,
    choose_flow_backend,
    half_precision,
    make_decoder,
)
from light_tts.decode.dispatcher import ServiceSettings
from light_tts.decode.heap import HeapTrimmer, bound_compiled_shapes
from light_tts.decode.jobs import Done, Job, JobRunner
from light_tts.decode.memory import budget_for, state_limit_bytes
from light_tts.decode.scheduler import BatchLimits
from light_tts.decode.service import DecodeService
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.decode.warm import record_graphs, warm_up
from light_tts.decode.workers import WorkerPool
from light_tts.messages import Message, Stage, ToDecode
from light_tts.models.bundled import resolve_model_dir
from light_tts.models.loader import device_of, dtype_of, load_flow, load_vocoder
from light_tts.models.model_yaml import read_model_config
from light_tts.observe import metrics
from light_tts.threads import use_threads
from light_tts.transport import Inbox, Outbox, address

logger = logging.getLogger(__name__)

WAIT_S = 0.2  # the main loop turns at least so often
MAX_MESSAGES = 1000  # handled per turn
STOP_S = 5.0  # for batches in flight when it is time to stop


class DecodeProcess:
    """Receives and sends in the main thread, decodes in `decode_paral_num` others."""

    def __init__(
        self,
        config: ServerConfig,
        run_dir: Path,
        index: int,
        decoder: SpeechDecoder,
        vocab_size: int,
        backend: FlowBackend,
        pool_bytes: int = 0,
    ) -> None:
        device = device_of(config.device_of(Stage.DECODE, index))
        budget = budget_for(config, index, pool_bytes)
        frame_bytes = warm_up(decoder)
        settings = ServiceSettings(
            index=index,
            llm=address(run_dir, Stage.LLM, 0),
            paral=config.decode_paral_num,
            limits=BatchLimits(config.decode_max_batch_size, decoder.max_batch_frames // 2),
            bytes_per_frame=frame_bytes,
            vocab_size=vocab_size,
            cache_capacity=config.cache_capacity,
        )
        self._max_job_s = config.request_timeout_s
        self._info = {
            "device": str(device),
            "dtype": str(dtype_of(config.dtype)).removeprefix("torch."),
            "flow_backend": backend.name,
            "flow_backend_reason": backend.reason,
            "threads_per_batch": str(torch.get_num_threads()),
            "state_limit_mb": str(budget.limit_bytes >> 20),
            "state_kb_per_frame": str(frame_bytes >> 10),
        }
        self._pool: WorkerPool[Job, Done] = WorkerPool(
            config.decode_paral_num, lambda: JobRunner(decoder, device).run
        )
        self._service = DecodeService(decoder, settings, budget, metrics(), self._send, self._pool.submit)
        self._outbox = Outbox()
        self._heap = HeapTrimmer()
        here = address(run_dir, Stage.DECODE, index)
        self._inbox: Inbox[ToDecode] = Inbox(here, ToDecode)  # type: ignore[arg-type]  # a union is no class

    @property
    def service(self) -> DecodeService:
        return self._service

    def info(self) -> dict[str, str]:
        return self._info

    def run(self, control: Control) -> None:
        """Until `control.stopping`. Raises Unavailable when the GPU is lost."""
        try:
            while not control.stopping:
                self._inbox.wait(WAIT_S, also=self._pool.wake_fd)
                self._turn()
                if self._service.stuck_s() < self._max_job_s:  # else silence brings about a restart
                    load = self._service.load()
                    control.beat(load.queued, load.oldest_s, load.running)
        finally:
            self._close()

    def _turn(self) -> None:
        for message in self._received():
            self._service.handle(message)
        for done in self._pool.results():
            self._service.done(done)
            self._heap.worked()
        self._service.expire()
        self._service.dispatch()
        self._outbox.forget_silent()
        self._heap.turn()

    def _received(self) -> Iterator[ToDecode]:
        for _ in range(MAX_MESSAGES):
            try:
                message = self._inbox.receive(0)
            except msgspec.DecodeError:  # of it, a ValidationError is one kind
                logger.exception("dropped a message that is none")
                continue
            if message is None:
                return
            yield message

    def _send(self, to: str, message: Message) -> None:
        try:
            self._outbox.send(to, message)
        except zmq.ZMQError:  # no address at all; one where nobody listens is none of our business
            logger.exception("cannot send to %r", to)

    def _close(self) -> None:
        self._inbox.close()
        if not self._pool.close(STOP_S):
            logger.warning("stopped while a batch was in flight")
        self._outbox.close()


def create(config: ServerConfig, run_dir: Path, index: int) -> DecodeProcess:
    """Raises errors of `light_tts.errors.ModelError`, and GenerationFailed for a model that gives no numbers."""
    bound_compiled_shapes()
    use_threads(max(1, config.threads_per_process // config.decode_paral_num))
    device, dtype = device_of(config.device_of(Stage.DECODE, index)), dtype_of(config.dtype)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    folder = resolve_model_dir(config.model_dir)
    model = read_model_config(folder)
    backend = choose_flow_backend(config.load_trt, str(device), dtype=config.dtype)
    graphs = backend.name in (GRAPHS, TENSORRT)
    if graphs:
        dtype = torch.float32
    flow = load_flow(folder, model.flow, device, dtype)
    vocoder = load_vocoder(folder, model.hift, device, dtype)
    pool_bytes = state_limit_bytes(config, index) if graphs else 0
    precision = half_precision(config.dtype, model.version)
    decoder, backend = make_decoder(flow, vocoder, backend, precision, pool_bytes)
    announce(backend)
    if graphs:
        record_graphs(decoder, config.decode_max_batch_size)
    return DecodeProcess(config, run_dir, index, decoder, model.flow.vocab_size, backend, pool_bytes)
