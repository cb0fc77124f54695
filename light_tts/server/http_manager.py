"""`HttpServerManager`: an HTTP worker's requests on their way through the processes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from light_tts.config import ServerConfig
from light_tts.errors import Cancelled, LightTTSError, Overloaded, StageError, Unavailable
from light_tts.messages import (
    Abort,
    AudioChunk,
    Drain,
    Message,
    Pace,
    PeerLost,
    Planned,
    RequestFailed,
    Routed,
    Stage,
    Synthesize,
    TextAppend,
    ToHttp,
)
from light_tts.observe import Metrics, request_scope
from light_tts.server.backlog import Backlog
from light_tts.server.door import Door
from light_tts.server.limits import MAX_ARRIVING, READER_IDLE_S
from light_tts.server.report import report_finished
from light_tts.server.request_state import RequestState
from light_tts.server.voice_desk import VoiceDesk
from light_tts.transport import AsyncInbox, Outbox, address

logger = logging.getLogger(__name__)

_BURST = 64  # messages handled before others get their turn


class HttpServerManager:
    """Sends requests to encode processes, collects what all stages answer, and aborts what nobody waits for.

    Every request that `answering` accepts ends in exactly one way, and is then forgotten everywhere.

    reader_idle_s: how long a client may leave a second of audio untaken
    """

    def __init__(
        self,
        config: ServerConfig,
        run_dir: Path,
        metrics: Metrics,
        *,
        reader_idle_s: float = READER_IDLE_S,
    ) -> None:
        self.config = config
        self.reader_idle_s = reader_idle_s
        self.metrics = metrics
        self.door = Door(config, run_dir)
        self._run_dir = run_dir
        self._pid = os.getpid()
        self._reply_to = address(run_dir, Stage.HTTP, self._pid)
        self._numbers = itertools.count()
        self._requests: dict[str, RequestState] = {}
        self._backlog = Backlog(
            round(config.max_waiting_audio_mb * 1e6), metrics, pace=self._pace, end=self._end_unread
        )
        self.voices = VoiceDesk(config, run_dir, self.door, self._reply_to, self._send)
        self._num_arriving = 0
        self._inbox: AsyncInbox[ToHttp] | None = None
        self._outbox: Outbox | None = None
        self._receiving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; then tell the supervisor so by the file `http-PID.ready`."""
        self._inbox = AsyncInbox(self._reply_to, ToHttp)  # type: ignore[arg-type]  # a union is no type to mypy
        self._outbox = Outbox()
        self._receiving = asyncio.create_task(self._receive(self._inbox), name="http inbox")
        self._ready_file.touch()

    async def close(self) -> None:
        """End what is still in work, and stop listening."""
        self._ready_file.unlink(missing_ok=True)
        for state in list(self._requests.values()):
            self._end(state, Unavailable("the server stopped"))
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        if self._inbox is not None:
            self._inbox.close()
        if self._outbox is not None:
            self._outbox.close()
        Path(self._reply_to.removeprefix("ipc://")).unlink(missing_ok=True)

    @property
    def _ready_file(self) -> Path:
        return self._run_dir / f"http-{self._pid}.ready"

    @property
    def num_pending(self) -> int:
        """Accepted requests whose audio is not all there."""
        return sum(not state.settled for state in self._requests.values())

    def check_door(self) -> None:
        """Whether a request would be accepted now. Raises Overloaded or Unavailable."""
        self.door.check(self.num_pending)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While a request's body is read. Raises Overloaded: bodies take memory, and slow clients take their time."""
        if self._num_arriving >= MAX_ARRIVING:
            raise Overloaded(f"{self._num_arriving} requests are being received, limit {MAX_ARRIVING}")
        self._num_arriving += 1
        try:
            yield
        finally:
            self._num_arriving -= 1

    @contextmanager
    def answering(
        self, request: Synthesize, public_id: str, route: str, started_s: float
    ) -> Iterator[RequestState]:
        """A request in work for as long as the block runs; what leaves the block is its outcome.

        public_id: what the client knows the request by; started_s: of `time.perf_counter()`
        Raises Overloaded or Unavailable.
        """
        try:
            self.check_door()
            state = self._accept(request, public_id, started_s)
        except LightTTSError as refused:
            self.count_refused(refused)
            raise
        error: BaseException | None = None
        with request_scope(state.request_id):
            try:
                yield state
            except BaseException as caught:
                error = caught
                raise
            finally:
                self._forget(state)
                report_finished(state, route, error, self.metrics)

    def count_refused(self, error: LightTTSError) -> None:
        """A request that was not accepted."""
        self.metrics.requests.labels(outcome=error.code).inc()

    def append_text(self, state: RequestState, text: str, *, end: bool) -> None:
        """More text of a request with open text; `end`: the last of it."""
        state.num_text_chars += len(text)
        state.text_open = not end
        self._send(Stage.ENCODE, state.encode, TextAppend(state.request_id, text, end))

    def _accept(self, request: Synthesize, public_id: str, started_s: float) -> RequestState:
        request = msgspec.structs.replace(
            request,
            # A client's id may come twice; the second half is unique among all workers.
            request_id=f"{public_id}/{self._pid}.{next(self._numbers)}",
            reply_to=self._reply_to,
            deadline_s=time.time() + self.config.request_timeout_s,
        )
        state = RequestState(request, self._least_loaded_encode(), started_s, self._backlog.note)
        self._requests[state.request_id] = state
        self._send(Stage.ENCODE, state.encode, request)
        return state

    def _least_loaded_encode(self) -> int:
        load = Counter(
            state.encode for state in self._requests.values() if state.planned is None and not state.settled
        )
        ready = self.door.ready(Stage.ENCODE)
        if not ready:
            raise Unavailable("no encode process is ready at the moment")
        return min(ready, key=lambda index: (load[index], index))

    def _forget(self, state: RequestState) -> None:
        del self._requests[state.request_id]
        self._end(state, Cancelled("nobody waits for the answer"))
        self._backlog.forget(state)

    def _end(self, state: RequestState, error: LightTTSError) -> None:
        """Fail it, unless it has ended, and see that no process works on it."""
        state.fail(error)
        if not state.finished and not state.aborted:
            state.aborted = True
            self._abort(state)

    def _end_unread(self, state: RequestState, error: LightTTSError) -> None:
        """End it, even if all of its audio is there and waits only for its reader."""
        state.drop(error)
        self._end(state, error)

    def _pace(self, state: RequestState) -> None:
        self._send(Stage.LLM, 0, Pace(state.request_id, state.behind, state.deadline_s))

    def _abort(self, state: RequestState) -> None:
        abort = Abort(state.request_id)
        self._send(Stage.ENCODE, state.encode, abort)
        # Where the road is broken, behind the gap as well: nothing comes through it that this could overtake.
        if state.encode not in self.door.ready(Stage.ENCODE):
            self._send(Stage.LLM, 0, abort)
        if not self.door.ready(Stage.LLM):
            for decode in set(state.decode_of.values()):
                self._send(Stage.DECODE, decode, abort)

    def _send(self, stage: Stage, index: int, message: Message) -> None:
        if self._outbox is not None:
            self._outbox.send(address(self._run_dir, stage, index), message)

    async def _receive(self, inbox: AsyncInbox[ToHttp]) -> None:
        for number in itertools.count(1):
            try:
                self._handle(await inbox.receive())
            except msgspec.DecodeError:
                logger.exception("a message that is none was dropped")
            except Exception:  # one request's trouble must not end the others
                logger.exception("a message could not be handled")
            if number % _BURST == 0:
                await asyncio.sleep(0)

    def _handle(self, message: ToHttp) -> None:
        if isinstance(message, Drain):
            self.door.draining = True
            return
        if isinstance(message, PeerLost):
            self._lose(message)
            return
        if self.voices.take(message):
            return
        state = self._requests.get(message.request_id)
        if state is None:  # aborted meanwhile
            return
        match message:
            case Planned():
                state.plan(message)
            case Routed():
                state.route(message)
            case AudioChunk():
                state.add(message)
            case RequestFailed():
                self._end(state, StageError(message.code, message.message))

    def _lose(self, lost: PeerLost) -> None:
        """Fail what was in a process that is gone; what is elsewhere goes on."""
        self.door.lose(lost.pid)
        self.voices.lose(lost)
        for state in self._requests.values():
            if not state.settled and _sits_in(state, lost):
                text = f"the {lost.stage.value} process that worked on the request was lost: try again"
                self._end(state, Unavailable(text))


def _sits_in(state: RequestState, lost: PeerLost) -> bool:
    match lost.stage:
        case Stage.ENCODE:
            return state.encode == lost.index and (state.planned is None or state.text_open)
        case Stage.LLM:
            return True
        case Stage.DECODE:
            return lost.index in state.decode_of.values()
    return False
