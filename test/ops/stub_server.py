"""Stands for the server where a test is not about it: health, metrics, and audio in pieces. Also runs by itself:

python stub_server.py PORT [SECONDS_UNTIL_HEALTHY]
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METRICS = """\
# HELP light_tts_requests_total Requests by outcome
# TYPE light_tts_requests_total counter
light_tts_requests_total{{outcome="ok"}} {ok}
light_tts_requests_total{{outcome="overloaded"}} 2
# TYPE light_tts_audio_seconds_total counter
light_tts_audio_seconds_total {audio}
# TYPE light_tts_ttfa_seconds histogram
light_tts_ttfa_seconds_bucket{{le="+Inf"}} {ok}
light_tts_ttfa_seconds_sum {ttfa}
light_tts_ttfa_seconds_count {ok}
# TYPE light_tts_queue_size gauge
light_tts_queue_size{{stage="llm"}} 3
light_tts_queue_size{{stage="decode"}} 1
# TYPE light_tts_queue_oldest_seconds gauge
light_tts_queue_oldest_seconds{{stage="llm"}} 0.5
# TYPE light_tts_running gauge
light_tts_running{{stage="llm"}} 7
# TYPE light_tts_kv_tokens gauge
light_tts_kv_tokens{{state="used"}} 100
light_tts_kv_tokens{{state="total"}} 65536
# TYPE light_tts_restarts_total counter
light_tts_restarts_total{{stage="decode"}} 1
# TYPE python_info gauge
python_info{{version="3.11"}} 1
"""


class Stub(ThreadingHTTPServer):
    """healthy_at: `time.monotonic()` from which /healthz says 200

    requests: the fields of each synthesis request; pieces: audio of an answer; gap_s: between its pieces
    """

    daemon_threads = True

    def __init__(self, port: int = 0, healthy_after_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.healthy_at = time.monotonic() + healthy_after_s
        self.requests: list[dict[str, object]] = []
        self.types: list[str] = []
        self.pieces = [b"\0\0" * 6000] * 4  # a second
        self.gap_s = 0.0
        self.status = 200
        self.metrics: str | None = None
        self.most_at_once = 0
        self.at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Stub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        match self.path:
            case "/metrics":
                self._answer(200, self.server.metrics or metrics(len(self.server.requests)))
            case "/healthz" | "/readiness":
                well = time.monotonic() >= self.server.healthy_at
                self._answer(200 if well else 503, json.dumps({"message": "Ok" if well else "starting"}))
            case _:
                self._answer(404, "{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers.get("Content-Type", "")
        server = self.server
        with server.lock:
            server.types.append(kind.partition(";")[0])
            server.requests.append(json.loads(body) if "json" in kind else multipart_fields(kind, body))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            if server.status != 200:
                self._answer(server.status, json.dumps({"message": "no such luck", "error": {}}))
            else:
                self._stream()
        finally:
            with server.lock:
                server.at_once -= 1

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(self.server.pieces):
            time.sleep(self.server.gap_s if number else 0)
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def metrics(ok: int) -> str:
    return METRICS.format(ok=ok, audio=2.0 * ok, ttfa=0.25 * ok)


def multipart_fields(content_type: str, body: bytes) -> dict[str, object]:
    """Text fields as str, files as bytes."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = BytesParser(_class=EmailMessage, policy=HTTP).parsebytes(head + body)
    fields: dict[str, object] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        payload = part.get_payload(decode=True)
        if not isinstance(payload, bytes):
            raise ValueError(f"part {name} has no payload")
        fields[name] = payload if part.get_filename() else payload.decode("utf-8")
    return fields


@contextmanager
def running_stub() -> Iterator[Stub]:
    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stderr.write("stub: starting\n")
    with Stub(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0) as stub:
        stub.serve_forever(poll_interval=0.05)
