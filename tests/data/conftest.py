"""Raw files for the data stage's tests."""

import gzip
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> bytes); the script says how each request in turn goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[str] = []  # a status, "cut" (after 100,000 bytes), "no ranges", "other file"; "" goes well
        self.asked: list[str] = []  # the ranges
        self.paths: list[str] = []
        self.agents: set[str] = set()
        self.open = self.most = 0  # requests at the same time

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.server.open += 1
        self.server.most = max(self.server.most, self.server.open)
        try:
            self.answer(True)
        finally:
            self.server.open -= 1

    def answer(self, body: bool) -> None:
        wanted = self.headers.get("Range", "")
        if body:
            self.server.asked.append(wanted)
            self.server.paths.append(self.path)
            self.server.agents.add(self.headers.get("User-Agent", ""))
        trouble = self.server.script.pop(0) if body and self.server.script else ""
        found = self.server.files.get(self.path)
        if trouble.isdigit() or found is None:
            self.send_response(int(trouble or 404))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted) if trouble != "no ranges" else None
        start = int(span[1]) if span else 0
        stop = min(int(span[2]) + 1, len(found)) if span and span[2] else len(found)
        if start >= len(found) and span:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(found)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = found[start:stop] if trouble != "other file" else bytes(len(found))
        self.send_response(206 if span else 200)
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(found)}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data[: 100_000 if trouble == "cut" else None])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server on this machine."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def warc() -> Callable[..., bytes]:
    """Makes response records (url, content type, body), each in a gzip member of its own, as crawlers write them."""

    def make(*pages: tuple[str, str, bytes], status: str = "200 OK") -> bytes:
        """Response records (url, content type, body), each in a gzip member of its own, as crawlers write them."""
        out = b""
        for url, content, body in pages:
            http = (
                f"HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Record-ID: <urn:x:{url}>\r\n"
            head += "WARC-Date: 2025-01-01T00:00:00Z\r\n"
            head += f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
            out += gzip.compress(head.encode() + http + b"\r\n\r\n")
        return out

    return make
