"""Requests that the encode process works on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from light_tts.encode.open_text import OpenText
from light_tts.encode.planner import Plan
from light_tts.errors import LightTTSError
from light_tts.messages import Abort, Message, RequestFailed, Synthesize, VoiceFeatures
from light_tts.request import SynthesisRequest
from light_tts.timing import StageTimes

Send = Callable[[str, Message], None]


@dataclass(frozen=True, slots=True)
class Arrival:
    """Text of an open request. end: the last of it"""

    text: str
    end: bool


@dataclass(slots=True)
class OpenSpeech:
    """What is known of an open request once its voice is."""

    plan: Plan
    voice: VoiceFeatures
    text: OpenText


class RequestState:
    """One request, from its arrival until everything about it is sent. Once it is closed, nothing more is sent.

    Of an open request one thread at a time works through what has arrived: `wants_worker` and `next_arrival` see to
    that. `speech`, `beginning` and `work` belong to that thread.
    """

    def __init__(self, message: Synthesize, request: SynthesisRequest, send: Send, llm: str) -> None:
        self.message = message
        self.request = request
        self.arrived_s = time.monotonic()
        self.speech: OpenSpeech | None = None
        self.beginning = ""  # text that came before the voice was chosen
        self.work = StageTimes()
        self._send = send
        self._llm = llm
        self._lock = threading.Lock()
        self._closed = False
        self._told_llm = False
        self._has_worker = False
        self._arrivals: deque[Arrival] = deque()

    @property
    def request_id(self) -> str:
        return self.message.request_id

    @property
    def closed(self) -> bool:
        with self._lock:
            return self._closed

    def has_expired(self) -> bool:
        return time.time() > self.message.deadline_s

    def reply(self, messages: Iterable[Message], *, last: bool = False) -> None:
        """To the HTTP worker, unless the request is closed. last: this closes it"""
        self._emit(self.message.reply_to, messages, last)

    def pass_on(self, messages: Iterable[Message], *, last: bool = False) -> None:
        """To the LLM process, unless the request is closed. last: this closes it"""
        self._emit(self._llm, messages, last)

    def fail(self, error: LightTTSError) -> None:
        """Answer with the error, unless the request is closed; this closes it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._told_llm:
                self._send(self._llm, Abort(self.request_id))
            self._send(self.message.reply_to, RequestFailed(self.request_id, error.code, str(error)))

    def abort(self) -> None:
        """Nobody wants it any more: the last that is sent of it says so."""
        with self._lock:
            self._closed = True
            self._send(self._llm, Abort(self.request_id))

    def add(self, arrival: Arrival) -> None:
        with self._lock:
            self._arrivals.append(arrival)

    def wants_worker(self) -> bool:
        """Whether a thread should be sent to work on what has arrived; each True is for one."""
        with self._lock:
            if self._has_worker or self._closed:
                return False
            self._has_worker = True
            return True

    def next_arrival(self) -> Arrival | None:
        """For the thread at work; after None it must leave."""
        with self._lock:
            if self._closed or not self._arrivals:
                self._has_worker = False
                return None
            return self._arrivals.popleft()

    def _emit(self, to: str, messages: Iterable[Message], last: bool) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = last
            self._told_llm = self._told_llm or to == self._llm
            for message in messages:
                self._send(to, message)


class RequestTable:
    """The open requests by id. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, RequestState] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._states)

    def add(self, state: RequestState) -> bool:
        """False if the id is taken."""
        with self._lock:
            return self._states.setdefault(state.request_id, state) is state

    def get(self, request_id: str) -> RequestState | None:
        with self._lock:
            return self._states.get(request_id)

    def remove(self, state: RequestState) -> None:
        with self._lock:
            if self._states.get(state.request_id) is state:
                del self._states[state.request_id]

    def all(self) -> list[RequestState]:
        with self._lock:
            return [*self._states.values()]
