"""The real server under load over HTTP, with utterances of one fixed length."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from light_tts.bench.random_model import VOICE
from light_tts.encode.frontend import TextFrontend
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.errors import InvalidInput, Unavailable
from light_tts.loadtest.client import Level, Plan, measure
from light_tts.loadtest.figures import Figures, figures_of
from light_tts.quirks import ReferenceQuirks
from light_tts.request import RANGES

TEXT = "The morning train was almost empty, so I took a seat by the window and watched the fields go by."
TOKEN_RATE_HZ = 25
ROUNDS = 3  # requests of each caller
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """callers: levels, in order; seconds: of speech, each answer; start_s: until the server must be ready
    level_s: after which a level sends no more requests; request_s: after which one is given up
    flags: further ones of the server
    """

    callers: tuple[int, ...]
    seconds: float
    start_s: float
    level_s: float
    request_s: float
    flags: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        return round(self.seconds * TOKEN_RATE_HZ)


def fixed_length(model_dir: Path, version: int, num_tokens: int) -> dict[str, str]:
    """Fields of a request that let `TEXT` end after exactly so many speech tokens, whatever is drawn.

    They are the API's own: least and most speech tokens per text token, both just above what gives the number.
    Raises InvalidInput where the API's range does not reach so far.
    """
    tokenizer = TextTokenizer.from_model_dir(model_dir / "CosyVoice-BlankEN", version)
    segments = TextFrontend(tokenizer, version, ReferenceQuirks()).segments(TEXT, with_prefix=False)
    if len(segments) != 1:
        raise InvalidInput(f"the text has {len(segments)} segments with this tokenizer, must have 1")
    ratio = (num_tokens + 0.5) / len(segments[0].token_ids)
    highest = RANGES["max_token_text_ratio"].high
    if ratio > highest:
        raise InvalidInput(f"{num_tokens} speech tokens are {ratio:.1f} per text token, limit {highest:g}")
    return {"min_token_text_ratio": repr(ratio), "max_token_text_ratio": repr(ratio)}


@contextmanager
def running_server(
    model_dir: Path, load: Load, flags: Sequence[str], log: Path
) -> Iterator[tuple[str, float]]:
    """Start `light-tts serve`'s process; gives its address and the seconds until it was ready. Raises Unavailable.

    Whatever becomes of it, none of its processes outlives this.
    """
    port = _free_port()
    command = [sys.executable, "-m", "light_tts.server.api_server", "--model_dir", str(model_dir)]
    command += ["--port", str(port), "--voices_dir", str(model_dir / "registered"), *flags, *load.flags]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(process, url, start + load.start_s, log)
        yield url, time.monotonic() - start
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_ready(process: subprocess.Popen[bytes], url: str, deadline: float, log: Path) -> None:
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"the server ended with {process.returncode}: {_last_line(log)}")
        try:
            if httpx.get(f"{url}/readiness", timeout=2.0, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise Unavailable(f"the server was not ready in time: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing else is in this group
    process.wait()


def measure_levels(
    url: str, load: Load, fields: dict[str, str], tell: Callable[[Figures], None], left_s: Callable[[], float]
) -> None:
    """All callers buffered, then all streaming; each level after one round that does not count.

    tell: called with each level's figures; left_s: seconds that are left for all of this
    Raises Unavailable when they run out.
    """
    plan = Plan(url, (TEXT,), voice=VOICE, fields=fields, timeout_s=load.request_s)
    for stream in (False, True):
        for callers in load.callers:
            if left_s() < 1:
                raise Unavailable(
                    f"no time left for {callers} callers, {'streaming' if stream else 'buffered'}"
                )
            limit_s = min(load.level_s, left_s() / 2)
            asyncio.run(_level(plan, stream, callers, callers, limit_s))
            level = asyncio.run(_level(plan, stream, callers, ROUNDS * callers, limit_s))
            tell(figures_of(checked(level, load.seconds)))


async def _level(plan: Plan, stream: bool, callers: int, requests: int, limit_s: float) -> Level:
    return await measure(
        plan, stream=stream, concurrency=callers, requests=requests, done=lambda: None, limit_s=limit_s
    )


def checked(level: Level, seconds: float) -> Level:
    """An answer of another length than was asked for is a failure: its figures would be of other work."""
    outcomes = tuple(
        replace(outcome, fault=f"{outcome.audio_s:.2f} s of audio, {seconds:.2f} s were asked for")
        if outcome.fault is None and abs(outcome.audio_s - seconds) > 1e-6
        else outcome
        for outcome in level.outcomes
    )
    return replace(level, outcomes=outcomes)
