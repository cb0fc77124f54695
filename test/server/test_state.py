from __future__ import annotations

import time
from pathlib import Path

import pytest

from light_tts.messages import Stage
from light_tts.server.state import ChildState, ChildStatus, ServerState, read_state, write_state


def child(stage: Stage, index: int, status: ChildStatus) -> ChildState:
    return ChildState(
        stage, index, 100 + index, status, since=1.0, last_heartbeat=2.0, info={"device": "cpu"}
    )


def state(*statuses: ChildStatus, written: float = 0.0) -> ServerState:
    """Of an encode, an LLM and one or more decode processes."""
    stages = [(Stage.ENCODE, 0), (Stage.LLM, 0), (Stage.DECODE, 0), (Stage.DECODE, 1)]
    children = tuple(child(stage, i, status) for (stage, i), status in zip(stages, statuses, strict=False))
    return ServerState(7, 1.0, False, written or time.time(), children)


READY, DEAD = ChildStatus.READY, ChildStatus.DEAD


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = state(READY, DEAD, ChildStatus.HUNG, ChildStatus.STARTING)
    write_state(tmp_path, written)
    assert read_state(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", [None, "", "{", '{"supervisor_pid": "x"}'])
def test_no_state_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "state.json").write_text(content, "ascii")
    assert read_state(tmp_path) is None


@pytest.mark.parametrize(("age_s", "fresh"), [(0.0, True), (2.9, True), (3.1, False), (100.0, False)])
def test_an_old_state_says_nothing_about_now(age_s: float, fresh: bool) -> None:
    assert state(READY, written=1000.0).is_fresh(1000.0 + age_s) is fresh


@pytest.mark.parametrize(
    ("statuses", "all_ready", "serves"),
    [
        ((READY, READY, READY, READY), True, True),
        ((READY, READY, DEAD, READY), False, True),  # one decode process is enough
        ((READY, READY, DEAD, DEAD), False, False),
        ((READY, ChildStatus.HUNG, READY, READY), False, False),
        ((ChildStatus.STARTING, READY, READY, READY), False, False),
    ],
)
def test_it_serves_while_each_stage_has_a_ready_process(
    statuses: tuple[ChildStatus, ...], all_ready: bool, serves: bool
) -> None:
    found = state(*statuses)
    assert (found.all_ready, found.serves) == (all_ready, serves)
    assert [c.index for c in found.ready(Stage.DECODE)] == [i for i in (0, 1) if statuses[2 + i] is READY]
