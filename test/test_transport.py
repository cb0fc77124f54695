from __future__ import annotations

import asyncio
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from light_tts.messages import Abort, Drain, Planned, Stage, TextAppend, ToEncode, ToHttp
from light_tts.transport import AsyncInbox, Inbox, Outbox, address, supervisor_address


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """pytest's own folders are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="light-tts-test-") as folder:
        yield Path(folder)


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    box = Outbox()
    yield box
    box.close(linger_s=0)


def encode_inbox(run_dir: Path) -> Inbox[ToEncode]:
    return Inbox(address(run_dir, Stage.ENCODE, 0), ToEncode)  # type: ignore[arg-type]


def test_addresses_name_stage_and_index() -> None:
    assert address(Path("/run/x"), Stage.HTTP, 4711) == "ipc:///run/x/http-4711"
    assert supervisor_address(Path("/run/x")) == "ipc:///run/x/supervisor"


def test_a_folder_too_long_for_sockets_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="longer than 100 bytes: choose a shorter --run_dir"):
        address(Path("/" + "语" * 34), Stage.LLM, 0)


def test_what_is_sent_arrives_in_order_and_whole(run_dir: Path, outbox: Outbox) -> None:
    inbox = encode_inbox(run_dir)
    sent = [TextAppend("id", "字" * number) for number in range(500)]
    for message in sent:
        outbox.send(address(run_dir, Stage.ENCODE, 0), message)
    assert [inbox.receive(5) for _ in sent] == sent
    assert inbox.receive(0) is None
    inbox.close()


def test_nobody_else_may_use_the_socket(run_dir: Path) -> None:
    inbox = encode_inbox(run_dir)
    assert stat.S_IMODE((run_dir / "encode-0").stat().st_mode) == 0o600
    inbox.close()


def test_receive_returns_in_time_when_nothing_comes(run_dir: Path) -> None:
    inbox = encode_inbox(run_dir)
    start = time.monotonic()
    assert inbox.receive(0.1) is None
    assert 0.09 < time.monotonic() - start < 2
    inbox.close()


def test_drain_takes_what_is_there_and_does_not_wait(run_dir: Path, outbox: Outbox) -> None:
    inbox = encode_inbox(run_dir)
    for number in range(3):
        outbox.send(address(run_dir, Stage.ENCODE, 0), Abort(str(number)))
    first = inbox.receive(5)
    time.sleep(0.1)
    assert [first, *inbox.drain()] == [Abort("0"), Abort("1"), Abort("2")]
    assert list(inbox.drain()) == []
    inbox.close()


def test_wait_returns_for_a_message_and_for_a_file_descriptor(run_dir: Path, outbox: Outbox) -> None:
    inbox = encode_inbox(run_dir)
    readable, writable = os.pipe()
    start = time.monotonic()
    outbox.send(address(run_dir, Stage.ENCODE, 0), Abort("a"))
    inbox.wait(10, also=readable)
    assert inbox.receive(0) == Abort("a")
    os.write(writable, b"x")
    inbox.wait(10, also=readable)
    assert time.monotonic() - start < 5
    os.close(readable)
    os.close(writable)
    inbox.close()


def test_what_is_no_message_is_told_and_the_next_one_comes(run_dir: Path, outbox: Outbox) -> None:
    inbox = encode_inbox(run_dir)
    outbox.send(address(run_dir, Stage.ENCODE, 0), Drain())  # not for an encode process
    outbox.send(address(run_dir, Stage.ENCODE, 0), Abort("a"))
    with pytest.raises(msgspec.ValidationError):
        inbox.receive(5)
    assert inbox.receive(5) == Abort("a")
    inbox.close()


def test_sending_to_nobody_does_not_block_and_reaches_who_comes_later(run_dir: Path, outbox: Outbox) -> None:
    start = time.monotonic()
    for number in range(2000):
        outbox.send(address(run_dir, Stage.ENCODE, 0), Abort(str(number)))
    assert time.monotonic() - start < 2
    inbox = encode_inbox(run_dir)
    assert inbox.receive(5) == Abort("0")
    inbox.close()


def test_a_peer_that_restarts_gets_what_is_sent_afterwards(run_dir: Path, outbox: Outbox) -> None:
    here = address(run_dir, Stage.ENCODE, 0)
    first = encode_inbox(run_dir)
    outbox.send(here, Abort("before"))
    assert first.receive(5) == Abort("before")
    first.close()
    second = encode_inbox(run_dir)  # although the socket's file is still there
    time.sleep(0.3)
    outbox.send(here, Abort("after"))
    assert second.receive(5) == Abort("after")
    second.close()


def test_a_forgotten_peer_gets_nothing_of_what_waited(run_dir: Path, outbox: Outbox) -> None:
    here = address(run_dir, Stage.ENCODE, 0)
    outbox.send(here, Abort("old"))
    outbox.forget(here)
    outbox.forget(here)  # nothing to forget is no error
    inbox = encode_inbox(run_dir)
    outbox.send(here, Abort("new"))
    assert inbox.receive(5) == Abort("new")
    assert inbox.receive(0.1) is None
    inbox.close()


def test_peers_that_are_sent_nothing_are_forgotten(run_dir: Path, outbox: Outbox) -> None:
    old, new = address(run_dir, Stage.HTTP, 1), address(run_dir, Stage.HTTP, 2)
    outbox.send(old, Abort("a"))
    time.sleep(0.1)
    outbox.send(new, Abort("b"))
    outbox.forget_silent(0.05)
    inboxes: list[Inbox[Abort]] = [Inbox(here, Abort) for here in (old, new)]
    assert [inbox.receive(0.3) for inbox in inboxes] == [None, Abort("b")]
    outbox.send(old, Abort("c"))
    assert inboxes[0].receive(5) == Abort("c")
    for inbox in inboxes:
        inbox.close()


def test_closing_waits_for_what_is_under_way_but_not_for_ever(run_dir: Path) -> None:
    lonely = Outbox()
    lonely.send(address(run_dir, Stage.LLM, 0), Abort("a"))
    start = time.monotonic()
    lonely.close(linger_s=0.2)
    assert time.monotonic() - start < 2


def test_an_impossible_address_is_told(outbox: Outbox) -> None:
    with pytest.raises(zmq.ZMQError):
        outbox.send("nowhere", Abort("a"))


def test_the_event_loop_receives_while_it_does_other_things(run_dir: Path, outbox: Outbox) -> None:
    here = address(run_dir, Stage.HTTP, 1)
    planned = Planned("a", 1, 5, None)

    async def receive_two() -> list[ToHttp]:
        inbox: AsyncInbox[ToHttp] = AsyncInbox(here, ToHttp)  # type: ignore[arg-type]
        waiting = asyncio.create_task(inbox.receive())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        outbox.send(here, Drain())
        outbox.send(here, planned)
        received = [await asyncio.wait_for(waiting, 5), await asyncio.wait_for(inbox.receive(), 5)]
        inbox.close()
        return received

    assert asyncio.run(receive_two()) == [Drain(), planned]
