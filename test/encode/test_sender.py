from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest

from light_tts.encode.sender import Sender
from light_tts.messages import Abort, Message
from light_tts.transport import Inbox


def test_what_each_thread_sends_arrives_whole_and_in_its_order(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/inbox"
    inbox: Inbox[Abort] = Inbox(address, Abort)
    sender = Sender()

    def send(name: int) -> None:
        for number in range(50):
            sender.send(address, Abort(f"{name}/{number}"))

    threads = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    received = [message.request_id for _ in range(200) if (message := inbox.receive(10)) is not None]
    for name in range(4):
        assert [item for item in received if item.startswith(f"{name}/")] == [
            f"{name}/{n}" for n in range(50)
        ]
    sender.close()
    inbox.close()


def test_what_is_queued_when_it_closes_is_sent(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/inbox"
    inbox: Inbox[Abort] = Inbox(address, Abort)
    sender = Sender()
    for number in range(100):
        sender.send(address, Abort(str(number)))
    sender.close()
    assert len([message for _ in range(100) if (message := inbox.receive(10)) is not None]) == 100
    inbox.close()


def test_a_message_that_cannot_be_sent_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"ipc://{tmp_path}/inbox"
    inbox: Inbox[Abort] = Inbox(address, Abort)
    sender = Sender()
    sender.send(address, cast(Message, object()))
    sender.send(address, Abort("found"))
    message = inbox.receive(10)
    assert message is not None
    assert message.request_id == "found"
    sender.close()
    inbox.close()
    assert caplog.text.count("could not be sent") == 1
