"""Less room than work, of every kind: requests wait or are refused clearly, and their audio stays their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from light_tts.messages import Stage
from light_tts.server.state import ChildState
from test.soak.asks import LONG, PROMPT_TEXT, SHORT, differences, mixed, recording
from test.soak.client import Answer, Ask, Kind, send_all
from test.soak.harness import Server, running_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

PLACES, PARALLEL = 16, 3


def _uploads() -> list[Ask]:
    """Six voices that come in turns, so that each evicts the one before it."""
    return [
        Ask(
            Kind.STREAM if index % 2 else Kind.BUFFERED,
            (SHORT[index // 6],),
            {"seed": str(index), "prompt_text": PROMPT_TEXT},
            recording(1.0 + index % 6 / 20),
        )
        for index in range(18)
    ]


def _long() -> list[Ask]:
    """More than the pool holds at once: where three may run, there is room for two of them."""
    return [
        Ask(list(Kind)[index % 3], (LONG[index % 2],), {"seed": str(index), "voice": "nora"})
        for index in range(12)
    ]


@pytest.fixture(scope="module")
def expected() -> dict[str, list[Answer]]:
    """What a server with room for everything says, one request at a time."""
    with running_server() as roomy:
        groups = {"uploads": _uploads(), "long": _long(), "crowd": mixed(30, long_every=99)}
        return {name: asyncio.run(send_all(roomy.url, asks, concurrency=1)) for name, asks in groups.items()}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    flags = ["--cache_capacity", "1", "--gpt_paral_num", str(PARALLEL), "--gpt_paral_step_num", "10"]
    flags += ["--max_total_token_num", "1400", "--max_req_total_len", "1400", "--router_max_wait_tokens", "2"]
    with running_server(*flags, "--max_pending", str(PLACES), "--encode_process_num", "2") as running:
        yield running


def test_a_voice_evicted_while_in_use_is_nobody_elses(
    server: Server, expected: dict[str, list[Answer]]
) -> None:
    answers = asyncio.run(send_all(server.url, _uploads(), concurrency=12))
    assert differences(_uploads(), answers, expected["uploads"]) == []
    assert server.metric('light_tts_voice_cache_total{result="evicted"}') >= 6
    server.wait_idle()


def test_more_than_the_pool_holds_waits_its_turn(server: Server, expected: dict[str, list[Answer]]) -> None:
    async def watched() -> tuple[list[Answer], list[ChildState]]:
        seen = []
        sending = asyncio.create_task(send_all(server.url, _long(), concurrency=12))
        while not sending.done():
            seen.append(server.child(Stage.LLM))
            await asyncio.sleep(0.1)
        return await sending, seen

    answers, seen = asyncio.run(watched())
    assert differences(_long(), answers, expected["long"]) == []
    # Those that have yielded their places count as running: more are in hand than there are places.
    assert max(llm.queued + llm.running for llm in seen) > PARALLEL
    server.wait_idle()


def test_more_than_may_wait_is_refused_at_once(server: Server, expected: dict[str, list[Answer]]) -> None:
    asks = mixed(30, long_every=99)
    answers = asyncio.run(send_all(server.url, asks, concurrency=30))
    refused = [answer for answer in answers if not answer.whole]
    assert 1 <= len(refused) <= 30 - PLACES
    for answer in refused:
        assert (answer.status, answer.code) == (429, "overloaded"), answer.told
        assert not answer.headers or int(answer.headers["retry-after"]) >= 1
    served = [index for index, answer in enumerate(answers) if answer.whole]
    assert (
        differences(
            [asks[i] for i in served], [answers[i] for i in served], [expected["crowd"][i] for i in served]
        )
        == []
    )
    server.wait_idle()
