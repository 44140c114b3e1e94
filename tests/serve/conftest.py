import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from groundup.infer.engine import Engine
from groundup.serve.app import create_app


class Running:
    """A server in a thread of the test's process."""

    def __init__(self, url: str, engine: Engine, app: object) -> None:
        self.url, self.engine, self.app = url, engine, app

    def wait_until_free(self, timeout_s: float = 10) -> float:
        """Returns the seconds until the engine's lock could be taken and no request was left."""
        start = time.monotonic()
        assert self.engine._lock.acquire(timeout=timeout_s)
        self.engine._lock.release()
        while self.app.state.writer.requests:  # type: ignore[attr-defined]
            assert time.monotonic() - start < timeout_s
            time.sleep(0.01)
        return time.monotonic() - start


@pytest.fixture(scope="session")
def serve(
    make_project: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Running]]:
    """Starts a real uvicorn server over a tiny model; all are stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(max_waiting: int = 32, examples: list[str] | None = None, **model: object) -> Running:
            engine = Engine.load(make_project(tmp_path_factory.mktemp("serve") / "tiny", **model))
            app = create_app(engine, max_waiting=max_waiting, examples=examples)
            sock = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
            thread.start()

            def stop() -> None:
                app.state.writer.close()
                server.should_exit = True
                thread.join(20)
                sock.close()

            stack.callback(stop)
            return Running(f"http://127.0.0.1:{sock.getsockname()[1]}", engine, app)

        yield start
