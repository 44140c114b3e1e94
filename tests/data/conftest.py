"""Raw files for the data stage's tests."""

import gzip
from collections.abc import Callable

import pytest


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
