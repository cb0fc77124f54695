"""An HTTP worker without the rest: `/` answers with its pid, `/slow` after a while; messages go to a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path

from light_tts.messages import Stage, ToHttp
from light_tts.transport import AsyncInbox, address

Scope = MutableMapping[str, object]
Receive = Callable[[], Awaitable[MutableMapping[str, object]]]
Send = Callable[[MutableMapping[str, object]], Awaitable[None]]


async def _write_messages(inbox: AsyncInbox[ToHttp], log: Path) -> None:
    while True:
        message = await inbox.receive()
        with log.open("a", encoding="ascii") as file:
            file.write(f"{message}\n")


async def _live(receive: Receive, send: Send) -> None:
    run_dir = Path(os.environ["LIGHT_TTS_RUN_DIR"])
    await receive()
    inbox: AsyncInbox[ToHttp] = AsyncInbox(address(run_dir, Stage.HTTP, os.getpid()), ToHttp)  # type: ignore[arg-type]
    log = Path(os.environ["FAKE_DIR"]) / f"http-{os.getpid()}.messages"
    writer = asyncio.create_task(_write_messages(inbox, log))
    (run_dir / f"http-{os.getpid()}.ready").touch()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    writer.cancel()
    inbox.close()
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
