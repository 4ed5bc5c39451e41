"""A proxy before an S3 server that fails as S3 does on a bad day."""

from __future__ import annotations

import random
import socket
import socketserver
import struct
import threading
import time
from contextlib import suppress

VERBS = (b"GET ", b"PUT ", b"HEAD", b"POST", b"DELE")
RATE = 0.3
"""Share of the requests that fail while the proxy is spoilt."""


def _answer(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


ANSWERS = {
    "500": _answer("500 Internal Server Error", "InternalError"),
    "503": _answer("503 Slow Down", "SlowDown"),
}
FAULTS = (*ANSWERS, "reset", "short")


class Proxy(socketserver.ThreadingTCPServer):
    """Passes bytes on to a server; while `spoilt`, some requests get an error, a reset or half of their answer."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.server, self.spoilt, self.injected, self.away = server, True, 0, False
        self.random = random.Random(0)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait_for(self, injected: int) -> None:
        """Wait until so many requests have failed, two minutes at most."""
        end = time.monotonic() + 120
        while self.injected < injected and time.monotonic() < end:
            time.sleep(0.2)

    def fault(self, data: bytes) -> str | None:
        """What happens to a request that begins with these bytes."""
        if not self.spoilt or data[:4] not in VERBS or self.random.random() > RATE:
            return None
        self.injected += 1
        return self.random.choice(FAULTS)


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        if self.server.away:
            return
        with suppress(OSError), socket.create_connection(self.server.server) as upstream:
            short = threading.Event()
            back = threading.Thread(target=self._answers, args=(upstream, short), daemon=True)
            back.start()
            while data := self.request.recv(65536):
                if self.server.away:
                    break
                fault = self.server.fault(data)
                if fault in ANSWERS:
                    self.request.sendall(ANSWERS[fault])
                    break
                if fault == "reset":
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                if fault == "short":
                    short.set()
                upstream.sendall(data)
            with suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)

    def _answers(self, upstream: socket.socket, short: threading.Event) -> None:
        with suppress(OSError):
            while data := upstream.recv(65536):
                if short.is_set():
                    self.request.sendall(data[: len(data) * 2 // 3])
                    break
                self.request.sendall(data)
            self.request.shutdown(socket.SHUT_RDWR)
