"""An encode service of a tiny model, and everything that it sends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from light_tts.encode.audio import AudioLimits
from light_tts.encode.frontend import TextFrontend
from light_tts.encode.planner import Planner
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.service import EncodeService
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.encode.voices import VoiceStore
from light_tts.messages import (
    LlmTask,
    Message,
    Mode,
    Planned,
    RequestFailed,
    Sampling,
    Stage,
    Synthesize,
    TextIds,
)
from light_tts.models.model_yaml import read_model_config
from light_tts.observe import Metrics, metrics
from light_tts.quirks import ReferenceQuirks

LLM, HTTP = "ipc://llm", "ipc://http"
PATIENCE_S = 30.0


class Sent:
    """What was sent, in order. Its `send` may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: list[tuple[str, Message]] = []

    def send(self, to: str, message: Message) -> None:
        with self._changed:
            self._messages.append((to, message))
            self._changed.notify_all()

    def all(self, to: str | None = None, request_id: str | None = None) -> list[Message]:
        with self._changed:
            return [
                message
                for address, message in self._messages
                if (to is None or address == to)
                and (request_id is None or getattr(message, "request_id", None) == request_id)
            ]

    def wait(self, request_id: str) -> Planned | RequestFailed:
        """The news that the request was planned, or has failed."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                for _, message in self._messages:
                    if isinstance(message, Planned | RequestFailed) and message.request_id == request_id:
                        return message
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"nothing came for {request_id}; sent: {self._messages}")


@dataclass
class Bench:
    service: EncodeService
    sent: Sent
    planner: Planner
    catalog: VoiceCatalog
    encoder: PromptEncoder
    metrics: Metrics

    def tasks(self, request_id: str) -> list[LlmTask]:
        return [message for message in self.sent.all(LLM, request_id) if isinstance(message, LlmTask)]

    def settle(self) -> None:
        """Wait until nothing is under way."""
        deadline = time.monotonic() + PATIENCE_S
        while any(self.service.load()) and time.monotonic() < deadline:
            time.sleep(0.002)
        assert self.service.load() == (0, 0.0, 0)


@contextmanager
def bench(
    folder: Path,
    *,
    num_threads: int = 4,
    capacity: int = 4,
    max_text_chars: int = 10_000,
    max_prompt_s: float = 30.0,
    voices_dir: Path | None = None,
) -> Iterator[Bench]:
    config = read_model_config(folder)
    tokenizer = TextTokenizer.from_model_dir(folder / "CosyVoice-BlankEN", config.version)
    quirks = ReferenceQuirks()
    frontend = TextFrontend(tokenizer, config.version, quirks, max_chars=max_text_chars)
    verbatim = TextFrontend(tokenizer, config.version, quirks, normalise=False, max_chars=max_text_chars)
    encoder = PromptEncoder(folder, config)
    store = VoiceStore(voices_dir) if voices_dir is not None else None
    limits = AudioLimits(max_seconds=max_prompt_s)
    catalog = VoiceCatalog(folder, encoder, config.spk_embed_dim, store, capacity, limits)
    planner = Planner(frontend, verbatim, catalog)
    sent, numbers = Sent(), metrics()
    service = EncodeService(
        planner,
        catalog,
        sent.send,
        _address,
        numbers,
        num_threads=num_threads,
        max_text_chars=max_text_chars,
    )
    try:
        yield Bench(service, sent, planner, catalog, encoder, numbers)
    finally:
        service.close()


def _address(stage: Stage, index: int) -> str:
    return f"ipc://{stage.value}" + (f"-{index}" if index else "")


def request(
    request_id: str,
    text: str = "quick fox.",
    *,
    timeout_s: float = 60.0,
    mode: Mode = Mode.AUTO,
    voice: str | None = None,
    prompt_wav: bytes | None = None,
    prompt_text: str | None = None,
    instruct_text: str | None = None,
    text_open: bool = False,
    stream: bool = False,
    speed: float = 1.0,
    normalise: bool = True,
    allow_tags: bool = False,
    sampling: Sampling | None = None,
) -> Synthesize:
    return Synthesize(
        request_id,
        HTTP,
        time.time() + timeout_s,
        text,
        mode,
        voice,
        prompt_wav,
        prompt_text,
        instruct_text,
        stream,
        text_open,
        speed,
        normalise,
        allow_tags,
        sampling or Sampling(),
    )


def sequences(messages: Sequence[Message], *, complete: bool = True) -> list[tuple[int, ...]]:
    """Text ids of each segment of one request, out of what the LLM process was told. Checks the order."""
    texts: list[tuple[int, ...]] = []
    is_open = False
    for message in messages:
        match message:
            case LlmTask(segment=segment, text=text, max_text_tokens=limit):
                assert not is_open
                assert segment == len(texts)
                texts.append(text)
                is_open = limit is not None
            case TextIds(segment=segment, ids=ids, end=end):
                assert is_open
                assert segment == len(texts) - 1
                texts[-1] += ids
                is_open = not end
            case _:
                raise AssertionError(f"{message} is no text")
    assert not (is_open and complete)
    return texts
