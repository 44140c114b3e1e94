"""`groundup serve`: FastAPI over one engine. One thread writes; requests wait their turn; whoever leaves frees the engine."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from groundup.base.errors import ConfigError, GroundupError
from groundup.base.log import say
from groundup.base.records import read_problems
from groundup.infer.config import locate
from groundup.infer.engine import Engine, Likelihood
from groundup.serve.config import ServeConfig
from groundup.serve.openai import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    Job,
    Reply,
    chat_job,
    completion_jobs,
    error_body,
    usage,
)

__all__ = ["create_app", "main"]

PAGE = Path(__file__).with_name("page.html")
LOOK_S = 0.1  # how often a request is asked whether its client is still there


@dataclass(frozen=True)
class Event:
    """A piece of an answer; the last one of an answer has a reason and the number of tokens."""

    index: int
    text: str
    likelihoods: list[Likelihood] | None
    reason: str | None = None
    completion_tokens: int = 0


class Writer:
    """The one thread in which the engine writes, and the line of those who wait for it."""

    def __init__(self, engine: Engine, max_waiting: int) -> None:
        self.engine, self.max_waiting = engine, max_waiting
        self.requests: set[threading.Event] = (
            set()
        )  # one for each request that runs or waits; set: it's not wanted any more
        self._thread = ThreadPoolExecutor(1, "engine")

    async def write(self, jobs: list[Job], request: Request) -> AsyncIterator[Event]:
        """Yields the answers piece by piece, one after the other; stops when the client has gone. Raises: ApiError."""
        loop, cancel = asyncio.get_running_loop(), threading.Event()
        queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

        def put(item: Event | BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the server has shut down meanwhile
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            try:
                self._answers(jobs, cancel, put)
                put(None)
            except BaseException as error:
                put(error)

        async def watch() -> None:
            while not await request.is_disconnected():
                await asyncio.sleep(LOOK_S)
            cancel.set()

        self.requests.add(cancel)
        self._thread.submit(work)
        watcher = asyncio.create_task(watch())
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            cancel.set()
            watcher.cancel()
            self.requests.discard(cancel)

    def _answers(self, jobs: list[Job], cancel: threading.Event, put: Callable[[Event], None]) -> None:
        """Runs in the engine's thread."""
        for number, job in enumerate(jobs):
            for k in range(job.n):
                if cancel.is_set():
                    return
                index, told = number * job.n + k, 0
                params = replace(job.params, seed=job.params.seed + k)
                answer = self.engine.answer(job.prompt, params, job.stops, cancel, job.likelihoods)
                if job.echo:
                    put(Event(index, job.echo, None))
                for piece in answer:
                    told, new = len(answer.likelihoods), answer.likelihoods[told:]
                    put(Event(index, piece, None if job.likelihoods is None else new))
                rest = None if job.likelihoods is None else answer.likelihoods[told:]
                put(Event(index, "", rest, answer.finish_reason, answer.completion_tokens))

    def check(self) -> None:
        """Raises: ApiError if too many are waiting already."""
        if len(self.requests) > self.max_waiting:
            raise ApiError("too many requests are waiting; try again in a moment", 503, code="overloaded")

    def close(self) -> None:
        """Ends all answers."""
        for cancel in list(self.requests):
            cancel.set()
        self._thread.shutdown(wait=False, cancel_futures=True)


async def respond(writer: Writer, jobs: list[Job], reply: Reply, request: Request) -> dict[str, Any]:
    """Returns the whole response."""
    count = sum(job.n for job in jobs)
    texts, reasons, written = [""] * count, [None] * count, 0
    tokens: list[list[Likelihood]] = [[] for _ in range(count)]
    async for event in writer.write(jobs, request):
        texts[event.index] += event.text
        tokens[event.index] += event.likelihoods or []
        if event.reason:
            reasons[event.index] = event.reason  # type: ignore[call-overload]
            written += event.completion_tokens
    wanted = jobs[0].likelihoods is not None
    choices = [reply.choice(i, texts[i], reasons[i], tokens[i] if wanted else None) for i in range(count)]
    return reply.whole(choices, usage(sum(len(job.prompt) for job in jobs), written), jobs[0].left_out)


async def stream(
    writer: Writer, jobs: list[Job], reply: Reply, request: Request, with_usage: bool
) -> AsyncIterator[str]:  # fmt: skip
    """Yields the lines of an event stream. An error halfway becomes its last event: the status has long been sent."""

    def line(value: dict[str, Any]) -> str:
        return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"

    written = 0
    try:
        if reply.chat:
            yield line(reply.chunk([reply.opening(i) for i in range(jobs[0].n)], jobs[0].left_out))
        async with contextlib.aclosing(writer.write(jobs, request)) as events:  # type: ignore[type-var]
            async for event in events:
                written += event.completion_tokens
                yield line(reply.chunk([reply.delta(event.index, event.text, event.reason, event.likelihoods)]))
        if with_usage:
            yield line({**reply.chunk([]), "usage": usage(sum(len(job.prompt) for job in jobs), written)})
    except GroundupError as error:
        yield line(error_body(str(error)))
    yield "data: [DONE]\n\n"


def create_app(engine: Engine, model: str = "", max_waiting: int = 32, examples: list[str] | None = None) -> FastAPI:
    """Returns the server's application; `app.state.writer` is its `Writer`."""
    app = FastAPI(title="groundup", docs_url=None, redoc_url=None)
    model, writer, since = model or engine.name, Writer(engine, max_waiting), int(time.time())
    app.state.writer = writer
    card = {
        "id": model, "object": "model", "created": since, "owned_by": "groundup", "stage": engine.stage, "chat": engine.chats,
        "context": engine.context, "parameters": engine.model.config.params(), "examples": examples or [],
    }  # fmt: skip

    def known(name: str | None) -> None:
        if name not in (None, model):
            raise ApiError(
                f"The model '{name}' does not exist; this server has '{model}'", 404, "model", "model_not_found"
            )

    async def handle(jobs: list[Job], body: ChatRequest | CompletionRequest, request: Request) -> Response:
        writer.check()
        reply = Reply(engine, model, isinstance(body, ChatRequest))
        if body.stream:
            lines = stream(writer, jobs, reply, request, body.usage_in_stream())
            return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return JSONResponse(await respond(writer, jobs, reply, request))

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        known(body.model)
        return await handle([await run_in_threadpool(chat_job, body, engine)], body, request)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        known(body.model)
        return await handle(await run_in_threadpool(completion_jobs, body, engine), body, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        known(name)
        return card

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": model, "requests": len(writer.requests)}

    @app.get("/")
    async def page() -> Response:
        # Whatever the model writes, the page may neither load nor send anything elsewhere.
        policy = "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": policy})

    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Gives every refusal OpenAI's form."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return JSONResponse(error_body(str(error), error.status, error.param, error.code), error.status)

    @app.exception_handler(GroundupError)
    async def impossible(request: Request, error: GroundupError) -> Response:
        return JSONResponse(error_body(str(error)), 400)

    @app.exception_handler(RequestValidationError)
    async def misformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse(error_body(f"the body isn't JSON ({first['ctx']['error']})"), 400)
        key = next((str(part) for part in first["loc"][1:]), None)
        path = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse(error_body(f"{path or 'the body'}: {first['msg']}", param=key), 400)

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> Response:
        said = f"{error.detail}: {request.method} {request.url.path}"
        return JSONResponse(error_body(said, error.status_code), error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse(error_body("something went wrong in the server; its log says what", 500), 500)


def listen(host: str, port: int) -> socket.socket:
    """Returns the listening socket. Raises: ConfigError in one line if the address can't be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise ConfigError(f"host: {host!r} isn't an address of this machine ({error.strerror})") from error
    except PermissionError as error:
        raise ConfigError(f"port: {port} needs special rights here; choose one of 1024 or above with --port") from error
    except OSError as error:
        raise ConfigError(
            f"port: {host}:{port} can't be used ({error.strerror}); choose another with --port"
        ) from error


class Server(uvicorn.Server):
    """uvicorn, but that answers end at once when it is told to stop."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Ends all answers, then lets uvicorn close the connections."""
        self.config.app.state.writer.close()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def questions(project: Path) -> list[str]:
    """Returns a few questions that the model was taught to answer, for the page to offer; none if there are no tasks."""
    file = project / "tasks" / "problems-test.jsonl"
    by_skill: dict[str, str] = {}
    if file.is_file():
        for problem in read_problems(file):
            if len(problem.question) <= 60:
                by_skill.setdefault(problem.skill, problem.question)
    return list(by_skill.values())[:4]


def main(config: ServeConfig) -> None:
    """Serves until Ctrl-C. Raises: ConfigError if the port is taken, CheckpointError if there is no model."""
    with listen(config.host, config.port) as sock:
        engine = Engine.load(locate(config.project, config.stage, config.name), config.device)
        app = create_app(engine, config.model_name, config.max_waiting, questions(config.project))
        host, port = sock.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        say(f"{app.state.writer.engine.name}: chat at {address}  API at {address}/v1  (Ctrl-C stops)")
        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        with contextlib.suppress(KeyboardInterrupt):
            Server(settings).run(sockets=[sock])
        say("stopped")
