"""What probes are told, out of the supervisor's state alone: nothing is ever synthesised for them."""

from __future__ import annotations

from dataclasses import dataclass

from light_tts.server.door import STAGES
from light_tts.server.state import ServerState


@dataclass(frozen=True, slots=True)
class Verdict:
    ok: bool
    message: str = "Ok"


def alive(state: ServerState | None) -> Verdict:
    """Whether it helps to wait. False: only a restart of everything does."""
    return Verdict(True) if state is not None else Verdict(False, "the supervisor is gone, or has not begun")


def healthy(state: ServerState | None) -> Verdict:
    """Whether a request could be answered: each stage has a ready process."""
    if state is None:
        return alive(state)
    missing = [stage for stage in STAGES if not state.ready(stage)]
    if not missing:
        return Verdict(True)
    children = ", ".join(
        f"{child.stage.value}-{child.index} is {child.status.value}"
        for child in state.children
        if child.stage in missing
    )
    return Verdict(False, children or f"there is no {missing[0].value} process")


def ready(state: ServerState | None, *, draining: bool) -> Verdict:
    """Whether a balancer should send requests here."""
    if draining or (state is not None and state.draining):
        return Verdict(False, "the server is stopping")
    return healthy(state)
