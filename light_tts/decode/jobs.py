"""One batch of work, as a worker thread does it: what fails, fails alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from light_tts.audio import Audio
from light_tts.decode.memory import state_bytes
from light_tts.decode.segment import SegmentStream, SpokenTokens
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.errors import GenerationFailed, LightTTSError, Overloaded
from light_tts.models.flow.flow_state import FlowPrompt, FlowState

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class VoiceJob:
    """ahead: compute the prompt's part; without it, each stream of the voice does so in its first chunk"""

    key: str
    prompt: FlowPrompt
    ahead: bool


@dataclass(frozen=True, slots=True, eq=False)
class ChunkJob:
    """The next chunk of each stream; nobody else touches the streams meanwhile."""

    keys: tuple[tuple[str, int], ...]
    streams: tuple[SegmentStream, ...]


@dataclass(frozen=True, slots=True, eq=False)
class WholeJob:
    keys: tuple[tuple[str, int], ...]
    segments: tuple[SpokenTokens, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """samples: int16 bytes; state_bytes: what the stream holds now"""

    samples: bytes
    state_bytes: int = 0


Job = VoiceJob | ChunkJob | WholeJob
Outcome = Spoken | FlowState | LightTTSError


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """outcomes: one per member, an error where it failed; voice_bytes: of a VoiceJob's state

    device_lost: the GPU refuses all further work of this process
    """

    job: Job
    outcomes: tuple[Outcome, ...]
    seconds: float
    voice_bytes: int = 0
    device_lost: bool = False


class JobRunner:
    """Does jobs; one per worker thread. On a GPU each has a stream of its own, and a job is over when the GPU is done
    with it: until then all that it read is alive, so that no other stream can be given its memory.
    """

    def __init__(self, decoder: SpeechDecoder, device: torch.device) -> None:
        self._decoder = decoder
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, job: Job) -> Done:
        """Never raises."""
        start = time.perf_counter()
        with self._on_device():
            match job:
                case VoiceJob():
                    outcomes: Sequence[Outcome] = self._isolated([job], self._voices)
                case ChunkJob(streams=streams):
                    outcomes = self._chunks(streams)
                case WholeJob(segments=segments):
                    outcomes = self._isolated(segments, self._whole)
        (first, *_) = outcomes
        size = state_bytes(first) if isinstance(first, FlowState) else 0
        failed = any(isinstance(outcome, LightTTSError) for outcome in outcomes)
        lost = failed and self._device_lost()
        return Done(job, tuple(outcomes), time.perf_counter() - start, size, lost)

    def _voices(self, jobs: Sequence[VoiceJob]) -> list[Outcome]:
        (job,) = jobs
        state = self._decoder.prefill(job.prompt) if job.ahead else self._decoder.begin(job.prompt)
        self._finish()
        return [state]

    def _chunks(self, streams: Sequence[SegmentStream]) -> list[Outcome]:
        before = [stream.snapshot() for stream in streams]  # also keeps alive what the GPU still reads

        def undo() -> None:
            for stream, past in zip(streams, before, strict=True):
                stream.restore(past)

        return self._isolated(streams, self._advance, undo)

    def _advance(self, streams: Sequence[SegmentStream]) -> list[Outcome]:
        wavs = self._decoder.advance(streams)
        self._finish()
        return [
            Spoken(self._pcm(wav), state_bytes(_kept(stream)))
            for wav, stream in zip(wavs, streams, strict=True)
        ]

    def _whole(self, segments: Sequence[SpokenTokens]) -> list[Outcome]:
        wavs = self._decoder.whole(segments)
        self._finish()
        return [Spoken(self._pcm(wav)) for wav in wavs]

    def _pcm(self, wav: Tensor | None) -> bytes:
        if wav is None:
            raise GenerationFailed("no chunk was ready where one was expected")
        return Audio(wav.numpy(), self._decoder.sample_rate_hz).pcm16()

    def _isolated(
        self,
        items: Sequence[T],
        work: Callable[[Sequence[T]], list[Outcome]],
        undo: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """All items together; should that fail, each once more by itself, so that only the poisoned one fails."""
        if len(items) == 1:
            return [self._alone(items[0], work)]
        try:
            return work(items)
        except Exception as error:
            undo()
            self._free_memory(error)
            logger.warning("a batch of %d failed (%s): trying each alone", len(items), error)
        return [self._alone(item, work) for item in items]

    def _alone(self, item: T, work: Callable[[Sequence[T]], list[Outcome]]) -> Outcome:
        try:
            return work([item])[0]
        except Exception as error:
            self._free_memory(error)
            return as_failure(error)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    def _finish(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()

    def _free_memory(self, error: Exception) -> None:
        if self._stream is None or not isinstance(error, torch.OutOfMemoryError):
            return
        try:
            torch.cuda.empty_cache()
        except RuntimeError as refused:  # while another thread records a graph
            logger.warning("memory is not given back now: %s", refused)

    def _device_lost(self) -> bool:
        """After an illegal access CUDA fails every call of the process. Asks its own stream alone: the whole device
        must not be waited for while another thread records a graph.
        """
        if self._stream is None:
            return False
        try:
            self._stream.synchronize()
        except RuntimeError:
            logger.exception("the GPU is lost to this process")
            return True
        return False


def as_failure(error: Exception) -> LightTTSError:
    """What the client is told. Logs what nobody expected."""
    if isinstance(error, LightTTSError):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error):
        logger.error("out of memory: %s", error)
        return Overloaded("not enough memory to synthesise this now")
    logger.error("decoding failed", exc_info=error)
    return LightTTSError("speech synthesis failed; the server's log says why")


def _kept(stream: SegmentStream) -> tuple[object, ...]:
    return stream.flow_state, stream.vocoder_state, stream.overlap_state, stream.stretcher
