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
from light_tts.decode.backend import FlowBackend, announce, choose_flow_backend
from light_tts.decode.dispatcher import ServiceSettings
from light_tts.decode.jobs import Done, Job, JobRunner
from light_tts.decode.memory import budget_for, state_bytes
from light_tts.decode.scheduler import BatchLimits
from light_tts.decode.segment import SpokenTokens
from light_tts.decode.service import DecodeService
from light_tts.decode.speech_decoder import MAX_BATCH_FRAMES, SpeechDecoder
from light_tts.decode.workers import WorkerPool
from light_tts.messages import Message, Stage, ToDecode
from light_tts.models.bundled import resolve_model_dir
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.models.loader import device_of, dtype_of, load_flow, load_vocoder
from light_tts.models.model_yaml import read_model_config
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.observe import metrics
from light_tts.threads import use_threads
from light_tts.transport import Inbox, Outbox, address

logger = logging.getLogger(__name__)

WAIT_S = 0.2  # the main loop turns at least so often
MAX_MESSAGES = 1000  # handled per turn
STOP_S = 5.0  # for batches in flight when it is time to stop
WARM_UP_TOKENS = 53  # two streamed chunks


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
    ) -> None:
        device = device_of(config.device_of(Stage.DECODE, index))
        budget = budget_for(config, index)
        frame_bytes = warm_up(decoder)
        settings = ServiceSettings(
            index=index,
            llm=address(run_dir, Stage.LLM, 0),
            paral=config.decode_paral_num,
            limits=BatchLimits(config.decode_max_batch_size, MAX_BATCH_FRAMES // 2),
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
        self._service.expire()
        self._service.dispatch()
        self._outbox.forget_silent()

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
    use_threads(max(1, config.threads_per_process // config.decode_paral_num))
    device, dtype = device_of(config.device_of(Stage.DECODE, index)), dtype_of(config.dtype)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    folder = resolve_model_dir(config.model_dir)
    model = read_model_config(folder)
    backend = choose_flow_backend(config.load_trt, str(device))
    announce(backend)
    flow = load_flow(folder, model.flow, device, dtype)
    decoder = SpeechDecoder(flow, load_vocoder(folder, model.hift, device, dtype))
    return DecodeProcess(config, run_dir, index, decoder, model.flow.vocab_size, backend)


def warm_up(decoder: SpeechDecoder) -> int:
    """Decode once each way, so that the first client waits for no one-time work. Returns the bytes of streaming
    state per mel frame. Raises GenerationFailed if the model gives no numbers.
    """
    prompt = FlowPrompt.without_recording(torch.ones(decoder.speaker_size))
    noise = SourceNoise.seeded(0)
    decoder.whole([SpokenTokens(torch.arange(WARM_UP_TOKENS), prompt, noise)])
    stream = decoder.open(prompt, noise)
    for token in range(WARM_UP_TOKENS):
        stream.add(token)
    decoder.advance([stream])
    per_frame = state_bytes(stream.flow_state) // (stream.flow_state.num_tokens * 2)
    stream.end()
    while not stream.finished:
        decoder.advance([stream])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return per_frame
