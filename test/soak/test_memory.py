"""Two thousand short requests leave no trace in any process."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from test.soak.asks import PROMPT_TEXT, recording
from test.soak.client import Ask, Kind, send_all
from test.soak.harness import Server, running_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

WARM_UP, NUMBER = 400, 2000
# Of a process. Eight kilobytes lost per request would be 16 MB; what grows by less is compiled code for shapes of audio
# that had not come yet, of which oneDNN keeps a limited number.
BOUND_MB = 16.0


def _asks(number: int) -> list[Ask]:
    """Of three kinds and three voices, each about a tenth of a second of audio."""
    return [_ask(index) for index in range(number)]


def _ask(index: int) -> Ask:
    fields = {"seed": str(index), "max_token_text_ratio": "1", "min_token_text_ratio": "0"}
    kind = Kind.BISTREAM if index % 8 == 0 else list(Kind)[index % 2]
    return Ask(kind, ("好的。",), {**fields, "prompt_text": PROMPT_TEXT}, recording(1.0 + index % 3 / 10))


def _resident_mb(server: Server) -> dict[str, float]:
    """By the name of the process."""
    pids = {f"{child.stage.value}-{child.index}": child.pid for child in server.state().children}
    pids |= {f"http-{index}": pid for index, pid in enumerate(sorted(server.workers()))}
    pids["supervisor"] = server.process.pid
    return {name: psutil.Process(pid).memory_info().rss / 1e6 for name, pid in pids.items()}


def test_memory_is_flat_over_two_thousand_requests() -> None:
    flags = ["--model_dir", "test/golden/cosyvoice2", "--httpserver_workers", "2"]
    # The KV pool is one that the warm-up has touched all of: memory that nobody has written to takes none.
    flags += ["--max_total_token_num", "4096", "--max_req_total_len", "4096"]
    with running_server(*flags) as server:
        _speak(server, WARM_UP)
        before = _resident_mb(server)
        _speak(server, NUMBER)
        after = _resident_mb(server)
        growth = {name: round(after[name] - before[name], 1) for name in before}
        assert max(growth.values()) < BOUND_MB, f"{growth} of {after}"
        files = len(list(server.run_dir.rglob("*")))
        assert files < 60, f"{files} files in run_dir"


def _speak(server: Server, number: int) -> None:
    answers = asyncio.run(send_all(server.url, _asks(number), concurrency=8))
    assert [answer.told for answer in answers if not answer.whole] == []
    server.wait_idle()
