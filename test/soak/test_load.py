"""The same request gives the same audio alone and among sixteen, whatever the number of processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from test.soak.asks import differences, mixed
from test.soak.client import Answer, Ask, send_all
from test.soak.harness import running_server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]


@dataclass(frozen=True, slots=True)
class Shape:
    """batch: chunks per batch of a decode process; number: of requests"""

    workers: int
    decoders: int
    batch: int
    number: int

    @property
    def tolerance(self) -> int:
        """Of int16 samples: sums of a batched matrix product are rounded in another order, chunk by chunk they are
        the same to the bit.
        """
        return 2 if self.batch > 1 else 0


# 200 requests in all, each number of HTTP workers and of decode processes once
SHAPES = [Shape(1, 1, 1, 67), Shape(2, 2, 2, 67), Shape(4, 3, 1, 66)]


@pytest.fixture(scope="module")
def asks() -> list[Ask]:
    return mixed(67)


@pytest.fixture(scope="module")
def alone(asks: list[Ask]) -> list[Answer]:
    """Each request as the only one in a server with one process of each kind."""
    with running_server() as server:
        answers = asyncio.run(send_all(server.url, asks, concurrency=1))
    for ask, answer in zip(asks, answers, strict=True):
        assert answer.whole, f"{ask.name}: {answer.told}"
        assert len(answer.audio) > 4_800, f"{ask.name}: {answer.told}"
    return answers


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_request_equals_itself_alone(shape: Shape, asks: list[Ask], alone: list[Answer]) -> None:
    flags = ["--httpserver_workers", str(shape.workers), "--decode_process_num", str(shape.decoders)]
    flags += ["--decode_max_batch_size", str(shape.batch), "--decode_paral_num", str(shape.batch)]
    asks, alone = asks[: shape.number], alone[: shape.number]
    with running_server(*flags) as server:
        answers = asyncio.run(send_all(server.url, asks, concurrency=16))
        assert differences(asks, answers, alone, shape.tolerance) == []
        server.wait_idle()
        assert server.metric('light_tts_requests_total{outcome="ok"}') == shape.number
