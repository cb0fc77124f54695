"""A stage that does what a file in FAKE_DIR, named like its socket, tells it: fail, sleep, die, hang, busy, stubborn.

What reaches its inbox is written, one line per message, to FAKE_DIR/STAGE-INDEX.messages.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from light_tts.child import Control
from light_tts.config import ServerConfig
from light_tts.errors import ModelNotFound
from light_tts.messages import Stage, ToLlm
from light_tts.observe import metrics
from light_tts.transport import Inbox, address


class FakeStage:
    def __init__(self, run_dir: Path, stage: Stage, index: int) -> None:
        self._name = f"{stage.value}-{index}"
        self._orders = Path(os.environ["FAKE_DIR"]) / self._name
        metrics().voice_cache.labels("hit").inc()  # each process counts once
        self._inbox: Inbox[ToLlm] = Inbox(address(run_dir, stage, index), ToLlm)  # type: ignore[arg-type]

    def order(self) -> str:
        return self._orders.read_text("ascii") if self._orders.exists() else ""

    def info(self) -> dict[str, str]:
        return {"device": "fake", "threads": os.environ["OMP_NUM_THREADS"]}

    def run(self, control: Control) -> None:
        while not control.stopping or self.order() == "stubborn":
            order = self.order()
            if order == "die":
                self._orders.unlink()
                os._exit(7)
            if order == "hang":
                self._orders.unlink()
                time.sleep(1000)
            control.beat(queued=0, oldest_s=0.0, running=int(order in ("busy", "stubborn")))
            message = self._inbox.receive(0.02)
            if message is not None:
                with self._orders.with_suffix(".messages").open("a", encoding="ascii") as log:
                    log.write(f"{message}\n")
        self._inbox.close()


def create(config: ServerConfig, run_dir: Path, index: int) -> FakeStage:
    stage = FakeStage(run_dir, Stage(sys.argv[1]), index)
    match stage.order():
        case "fail":
            raise ModelNotFound("no llm.pt here")
        case "crash":
            raise RuntimeError("not foreseen")
        case "exit":
            os._exit(9)
        case "sleep":
            time.sleep(1000)
    return stage
