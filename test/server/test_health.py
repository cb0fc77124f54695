"""What probes are told."""

from __future__ import annotations

import time

import pytest

from light_tts.messages import Stage
from light_tts.server.health import alive, healthy, ready
from light_tts.server.state import ChildState, ChildStatus, ServerState


def _state(*children: tuple[Stage, ChildStatus], draining: bool = False) -> ServerState:
    now = time.time()
    states = tuple(ChildState(stage, i, 1, status, now, now) for i, (stage, status) in enumerate(children))
    return ServerState(1, now, draining, now, states)


READY = [(stage, ChildStatus.READY) for stage in (Stage.ENCODE, Stage.LLM, Stage.DECODE)]


def test_one_ready_process_of_each_stage_is_health() -> None:
    state = _state(*READY, (Stage.DECODE, ChildStatus.DEAD))
    assert healthy(state).ok
    assert ready(state, draining=False).ok
    assert alive(state).ok


@pytest.mark.parametrize("status", [ChildStatus.STARTING, ChildStatus.HUNG, ChildStatus.DEAD])
def test_a_stage_without_a_ready_process_is_named_with_its_trouble(status: ChildStatus) -> None:
    verdict = healthy(_state(*READY[:2], (Stage.DECODE, status)))
    assert not verdict.ok
    assert verdict.message == f"decode-2 is {status.value}"


def test_a_stage_without_any_process_is_named() -> None:
    assert healthy(_state(*READY[:2])).message == "there is no decode process"


def test_without_a_supervisor_nothing_is_well() -> None:
    assert not alive(None).ok
    assert not healthy(None).ok
    assert not ready(None, draining=False).ok


def test_a_server_that_drains_is_well_but_wants_no_requests() -> None:
    state = _state(*READY, draining=True)
    assert healthy(state).ok
    assert not ready(state, draining=False).ok
    assert not ready(_state(*READY), draining=True).ok
