"""OpenAI's formats: what a request may say, what it means to the engine, and what is sent back."""

import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from groundup.base.errors import GroundupError
from groundup.base.records import Message
from groundup.infer.config import SamplingParams
from groundup.infer.engine import Engine, Likelihood

__all__ = ["ApiError", "ChatRequest", "CompletionRequest", "Job", "Reply", "chat_job", "completion_jobs", "error_body"]


class ApiError(Exception):
    """A refusal, in the form that OpenAI's clients understand."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def error_body(message: str, status: int = 400, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Returns the JSON of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Strict(BaseModel):
    """Types are meant as written ("1" isn't a number); fields that we don't know are ignored, as OpenAI adds new ones."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class TextPart(Strict):
    """A piece of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def message(self) -> Message:
        """Returns it in our own form."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(Strict):
    """What a stream contains besides the text."""

    include_usage: bool = False


class Request(Strict):
    """What both routes have in common.

    `top_k` isn't in OpenAI's API but in that of most other servers; `truncation` is a word of its newer API: "auto" leaves
    out the beginning of what doesn't fit the context.
    """

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    # Not known here. They are refused, not ignored: whoever sends one counts on its effect.
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    def sampling(self, max_tokens: int) -> SamplingParams:
        """Returns the sampling parameters; without a seed each request gets one of its own."""
        seed = secrets.randbelow(2**31) if self.seed is None else self.seed % 2**62
        temperature = 1.0 if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else max(self.top_p, 1e-9)  # 0 means: the likeliest token
        return SamplingParams(temperature, self.top_k or 0, top_p, max_tokens, seed)

    def stops(self) -> list[str]:
        """Returns the texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def usage_in_stream(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Request):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None


class CompletionRequest(Request):
    """The body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None


@dataclass(frozen=True)
class Job:
    """What the engine is to write: n answers to one prompt."""

    prompt: list[int]
    params: SamplingParams
    stops: list[str]
    n: int
    likelihoods: int | None = None  # how many alternatives to report beside each token; None: no log-probabilities
    echo: str = ""
    left_out: int = 0  # messages that didn't fit the context


def _check(engine: Engine, prompt: list[int], param: str) -> None:
    """Raises: ApiError if the prompt is empty or leaves no room for an answer."""
    try:
        engine.check(prompt)
    except GroundupError as error:
        raise ApiError(str(error), 400, param, "context_length_exceeded" if prompt else None) from error


def chat_job(request: ChatRequest, engine: Engine) -> Job:
    """Returns what a chat request asks of the engine. Raises: ApiError if it can't be done."""
    if not engine.chats:
        wrong = "hasn't been taught to chat, it continues texts; use /v1/completions"
        raise ApiError(f"The model '{engine.name}' {wrong}", 400, "model", "not_a_chat_model")
    if request.top_logprobs and not request.logprobs:
        raise ApiError("'top_logprobs' needs 'logprobs': true", 400, "top_logprobs")
    messages = [message.message() for message in request.messages]
    wanted = request.max_completion_tokens or request.max_tokens or engine.context
    left_out = 0
    try:
        if request.truncation == "auto":
            prompt, left_out = engine.fit(messages, wanted)
        else:
            prompt = engine.render(messages)
    except GroundupError as error:
        raise ApiError(str(error), 400, "messages", "context_length_exceeded") from error
    _check(engine, prompt, "messages")
    likelihoods = (request.top_logprobs or 0) if request.logprobs else None
    return Job(prompt, request.sampling(wanted), request.stops(), request.n or 1, likelihoods, left_out=left_out)


def completion_jobs(request: CompletionRequest, engine: Engine) -> list[Job]:
    """Returns what a completion request asks of the engine, a job for each prompt. Raises: ApiError if it can't be done."""
    prompt = request.prompt
    prompts: list[Any] = (
        [prompt] if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)) else list(prompt)
    )
    if not 0 < len(prompts) <= 64:
        raise ApiError(f"'prompt' has {len(prompts)} prompts; expected 1 to 64", 400, "prompt")
    jobs = []
    for one in prompts:
        tokens = engine.beginning(one) if isinstance(one, str) else one
        if wrong := [token for token in tokens if not 0 <= token < engine.tokenizer.vocab_size]:
            known = engine.tokenizer.vocab_size - 1
            raise ApiError(f"token {wrong[0]} is out of range: this vocabulary has ids 0 to {known}", 400, "prompt")
        wanted = request.max_tokens or 16
        if request.truncation == "auto":
            tokens = tokens[-engine.room(wanted) :]
        _check(engine, tokens, "prompt")
        echo = (one if isinstance(one, str) else engine.tokenizer.decode(one)) if request.echo else ""
        params = request.sampling(wanted)
        jobs.append(Job(tokens, params, request.stops(), request.n or 1, request.logprobs, echo))
    return jobs


class Reply:
    """The objects that answer one request; `chat` decides which of the two formats."""

    def __init__(self, engine: Engine, model: str, chat: bool) -> None:
        self.engine, self.chat = engine, chat
        kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl-" if chat else "cmpl-"
        self.head = {"id": prefix + secrets.token_hex(12), "object": kind, "created": int(time.time()), "model": model}

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, int], left_out: int) -> dict[str, Any]:
        """Returns the response without streaming."""
        return {**self.head, "choices": choices, "usage": usage, **self._note(left_out)}

    def chunk(self, choices: list[dict[str, Any]], left_out: int = 0) -> dict[str, Any]:
        """Returns one object of a stream."""
        kind = "chat.completion.chunk" if self.chat else self.head["object"]
        return {**self.head, "object": kind, "choices": choices, **self._note(left_out)}

    def _note(self, left_out: int) -> dict[str, int]:
        return {"left_out_messages": left_out} if left_out else {}

    def choice(self, index: int, text: str, reason: str | None, tokens: list[Likelihood] | None) -> dict[str, Any]:
        """Returns a choice of a whole response."""
        body = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": index, **body, "logprobs": self.logprobs(tokens), "finish_reason": reason}

    def delta(self, index: int, text: str, reason: str | None, tokens: list[Likelihood] | None) -> dict[str, Any]:
        """Returns a choice of a stream's chunk; the one with the reason is the last."""
        body: dict[str, Any] = {"text": text}
        if self.chat:
            body = {"delta": {"content": text} if text or reason is None else {}}
        return {"index": index, **body, "logprobs": self.logprobs(tokens), "finish_reason": reason}

    def opening(self, index: int) -> dict[str, Any]:
        """Returns the first choice of a chat stream, which says who speaks."""
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def logprobs(self, tokens: list[Likelihood] | None) -> dict[str, Any] | None:
        """Returns the log-probabilities of some tokens, in the route's format."""
        if tokens is None:
            return None
        if self.chat:
            return {"content": [{**self._entry(t.token, t.logprob), "top_logprobs": [self._entry(*top) for top in t.top]}
                                for t in tokens], "refusal": None}  # fmt: skip
        return {
            "tokens": [self._text(t.token) for t in tokens], "token_logprobs": [t.logprob for t in tokens],
            "top_logprobs": [{self._text(token): value for token, value in t.top} for t in tokens],
        }  # fmt: skip

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self._text(token), "logprob": logprob, "bytes": list(self.engine.tokenizer.token_bytes(token))}

    def _text(self, token: int) -> str:
        return self.engine.tokenizer.decode([token])


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Returns the numbers of tokens."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
