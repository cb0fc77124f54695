"""All children of the supervisor: started, listened to, replaced when they die or hang."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from light_tts.config import ServerConfig
from light_tts.errors import LightTTSError
from light_tts.messages import Heartbeat, PeerLost, PeerReady, Ready, Stage, StartFailed, ToSupervisor
from light_tts.server.children import Child
from light_tts.server.gauges import Gauges
from light_tts.server.http_workers import HttpWorkers
from light_tts.server.state import ChildState, ChildStatus
from light_tts.transport import Inbox, Outbox, address, supervisor_address

logger = logging.getLogger(__name__)

TURN_S = 0.1
BEAT_S = 0.5  # how often children tell of themselves
STOP_GRACE_S = 5.0  # for a child with nothing left to do
PAUSE_S = 1.0  # a turn that took longer: it was we who did not listen


class StartError(LightTTSError):
    """A process could not be started; the message says which and why."""

    code = "start_failed"


class Fleet:
    """changed: something happened since the caller last set it to False"""

    def __init__(
        self,
        config: ServerConfig,
        run_dir: Path,
        environment: Mapping[str, str],
        module: str | None,
        outbox: Outbox,
        workers: HttpWorkers,
        gauges: Gauges,
    ) -> None:
        self.changed = True
        self._config = config
        self._run_dir = run_dir
        self._children = [Child(spec, run_dir, environment, module) for spec in config.children()]
        # mypy: a union is no class
        self._inbox: Inbox[ToSupervisor] = Inbox(supervisor_address(run_dir), ToSupervisor)  # type: ignore[arg-type]
        self._outbox = outbox
        self._workers = workers
        self._gauges = gauges
        self._last_turn = time.monotonic()

    @property
    def all_ready(self) -> bool:
        return all(child.status is ChildStatus.READY for child in self._children)

    def states(self) -> tuple[ChildState, ...]:
        return tuple(child.state() for child in self._children)

    def start(self) -> None:
        for child in self._children:
            # HTTP workers that are there already have outlived a supervisor and its children.
            self._workers.tell(PeerLost(child.spec.stage, child.spec.index))
            child.start()

    def turn(self, *, starting: bool) -> None:
        """Hear everybody, look after everybody; takes TURN_S at most. starting: what fails raises StartError"""
        self._hear()
        paused = time.monotonic() - self._last_turn
        self._last_turn += paused
        for child in self._children:
            if paused > PAUSE_S:
                child.last_seen += paused
            self._look_after(child, starting=starting)

    def idle_since(self, since: float) -> bool:
        """Whether nothing waits or runs anywhere, by heartbeats that came well after `since`."""
        ready = [child for child in self._children if child.status is ChildStatus.READY]
        heard = all(child.last_seen > since + 2 * BEAT_S for child in ready)
        return heard and all(child.idle for child in ready)

    def stop(self, grace_s: float) -> None:
        """Ask all to stop, kill those that load a model or do not stop in time."""
        for child in self._children:
            if child.status is ChildStatus.STARTING:
                child.kill()
            child.terminate()
        deadline = time.monotonic() + grace_s
        for child in self._children:
            if not child.collect(max(0.0, deadline - time.monotonic())):
                logger.warning("%s did not stop in time, it is killed", child.name)
                child.kill()
                child.collect(STOP_GRACE_S)
        self._inbox.close()

    def _hear(self) -> None:
        try:
            message = self._inbox.receive(TURN_S)
            while message is not None:
                self._take(message)
                message = self._inbox.receive(0)
        except msgspec.DecodeError as error:
            logger.error("a message that is none: %s", error)

    def _take(self, message: ToSupervisor) -> None:
        child = next(
            (c for c in self._children if (c.spec.stage, c.spec.index) == (message.stage, message.index)),
            None,
        )
        if child is None:
            return
        match message:
            case Heartbeat():
                child.take_heartbeat(message)
            case StartFailed():
                self.changed |= child.take_failure(message)
            case Ready() if child.take_ready(message):
                took_s = time.time() - child.state().since
                details = ", ".join(f"{key} {value}" for key, value in message.info.items())
                logger.info("%s is ready (pid %d): %s", child.name, child.pid, details or f"{took_s:.1f} s")
                self._introduce(child)
                self.changed = True

    def _introduce(self, child: Child) -> None:
        """Let the LLM process know which decode processes there are."""
        ready = {c for c in self._children if c.status is ChildStatus.READY}
        llm = next(c for c in self._children if c.spec.stage is Stage.LLM)
        if llm not in ready:
            return
        for decode in ready if child is llm else {child}:
            if decode.spec.stage is Stage.DECODE:
                self._tell_llm(PeerReady(decode.spec.stage, decode.spec.index))

    def _tell_llm(self, message: PeerReady | PeerLost) -> None:
        self._outbox.send(address(self._run_dir, Stage.LLM, 0), message)

    def _look_after(self, child: Child, *, starting: bool) -> None:
        if child.status is ChildStatus.DEAD:
            if time.monotonic() >= child.restart_at:
                self._start_again(child)
            return
        reason = child.exit_reason()
        if reason is not None:
            if starting:
                raise StartError(f"{child.name} on {child.spec.device} cannot start: {reason}")
            self._bury(child, reason)
        elif child.status is ChildStatus.READY and child.silent_s() > self._config.hang_timeout_s:
            logger.error("%s hangs: no sign of life for %.0f s", child.name, child.silent_s())
            child.kill_hung()
            self.changed = True
        elif child.status is ChildStatus.STARTING and child.silent_s() > self._config.start_timeout_s:
            if starting:
                raise StartError(
                    f"{child.name} is not ready after {self._config.start_timeout_s:g} s (--start_timeout_s)"
                )
            logger.error("%s is not ready after %g s", child.name, self._config.start_timeout_s)
            child.kill_hung()

    def _start_again(self, child: Child) -> None:
        logger.info("starting %s again", child.name)
        self._gauges.count_restart(child.spec.stage)
        try:
            child.start()
        except OSError as error:  # no memory, or no more processes: that may pass
            logger.error("%s cannot be started: %s", child.name, error)
            child.bury()
        self.changed = True

    def _bury(self, child: Child, reason: str) -> None:
        logger.error("%s (pid %d) has ended: %s", child.name, child.pid, reason)
        stage, index = child.spec.stage, child.spec.index
        # What waits for it belongs to requests that fail now.
        self._outbox.forget(address(self._run_dir, stage, index))
        lost = PeerLost(stage, index, child.pid)
        self._workers.tell(lost)
        if stage is Stage.DECODE:
            self._tell_llm(lost)
        child.bury()
        self.changed = True
