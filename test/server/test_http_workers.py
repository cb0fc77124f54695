"""HTTP workers as the supervisor finds them: by their files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from light_tts.messages import PeerLost, Stage
from light_tts.server.http_workers import HttpWorkers
from light_tts.transport import Inbox, Outbox, address


def test_a_worker_that_died_leaves_nothing_and_its_requests_are_given_up(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for pid in (process.pid, os.getpid()):
        (tmp_path / f"http-{pid}").touch()
        (tmp_path / f"http-{pid}.ready").touch()
    (tmp_path / "metrics").mkdir()
    holders: list[Inbox[PeerLost]] = [
        Inbox(address(tmp_path, *holder), PeerLost)
        for holder in ((Stage.LLM, 0), (Stage.ENCODE, 0), (Stage.ENCODE, 1))
    ]
    outbox = Outbox()
    lost: list[int] = []
    workers = HttpWorkers(tmp_path, outbox, 2, lambda: lost.append(1))
    workers.look(draining=False)
    assert lost == [1]
    for holder in holders:
        assert holder.receive(5) == PeerLost(Stage.HTTP, process.pid, process.pid)
    assert workers.ready() == [os.getpid()]
    assert not list(tmp_path.glob(f"http-{process.pid}*"))
    outbox.close(linger_s=0)
    for holder in holders:
        holder.close()
