"""OpenAI's own client against a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12, "seed": 1}


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    return serve(context=4096)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_models_and_health(client: openai.OpenAI, server: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "groundup"
    assert httpx.get(server.url + "/health").json() == {"status": "ok", "model": "tiny", "requests": 0}
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("gpt-4o")


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASK)
    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert (choice.message.role, choice.finish_reason, choice.logprobs) == ("assistant", "length", None)
    assert len(choice.message.content) == 12
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 12, 21)


def test_chat_streamed_says_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK).choices[0].message.content
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) == 15  # who speaks, 12 letters, the reason, the usage


def test_parameters(client: openai.OpenAI) -> None:
    def ask(**rest: Any) -> Any:
        return client.chat.completions.create(**{**ASK, **rest})

    assert ask(seed=1).choices[0].message.content == ask(seed=1).choices[0].message.content
    assert ask(seed=1).choices[0].message.content != ask(seed=2).choices[0].message.content
    assert ask(temperature=0).choices[0].message.content == " " * 12  # of equals, the smallest id
    assert ask(top_p=0.01).choices[0].message.content == " " * 12
    assert ask(extra_body={"top_k": 1}).choices[0].message.content.isprintable()
    several = ask(n=3)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in several.choices}) == 3
    assert several.choices[1].message.content == ask(seed=2).choices[0].message.content
    assert several.usage.completion_tokens == 36
    limited = ask(max_tokens=openai.omit, max_completion_tokens=5)
    assert limited.usage.completion_tokens == 5
    stopped = ask(max_tokens=500, stop=["a", "zz"]).choices[0]
    assert stopped.finish_reason == "stop"
    assert "a" not in stopped.message.content
    parts = [{"role": "developer", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    assert ask(messages=parts).usage.prompt_tokens == 12


def test_n_streamed(client: openai.OpenAI) -> None:
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(**ASK, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    whole = client.chat.completions.create(**ASK, n=2)
    assert [choice.message.content for choice in whole.choices] == [texts[0], texts[1]]


def test_a_finished_answer(serve: Callable[..., Any]) -> None:
    server = serve(end=4.0)
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none") as client:
        choice = client.chat.completions.create(**{**ASK, "max_tokens": 200}).choices[0]
        assert choice.finish_reason == "stop"
        assert set(choice.message.content) <= set("abcdefgh ")
        unlimited = client.chat.completions.create(**{**ASK, "max_tokens": openai.omit, "stop": "\n"})
        assert unlimited.choices[0].message.content == choice.message.content


def test_logprobs(client: openai.OpenAI) -> None:
    content = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(content) == 12
    assert content[0].logprob == pytest.approx(-2.197, abs=1e-3)  # nine letters, all alike
    assert bytes(content[0].bytes).decode() == content[0].token
    assert len(content[0].top_logprobs) == 2
    streamed = client.chat.completions.create(**ASK, logprobs=True, stream=True)
    assert sum(len(c.choices[0].logprobs.content) for c in streamed if c.choices[0].logprobs) == 12
    plain = client.completions.create(model="tiny", prompt="x", max_tokens=4, logprobs=3).choices[0].logprobs
    assert (len(plain.tokens), len(plain.token_logprobs), len(plain.top_logprobs[0])) == (4, 4, 3)


def test_completions(client: openai.OpenAI) -> None:
    def ask(prompt: Any, **rest: Any) -> Any:
        return client.completions.create(model="tiny", prompt=prompt, seed=1, **rest)

    one = ask("Once")
    assert (len(one.choices[0].text), one.choices[0].finish_reason) == (16, "length")
    assert one.usage.prompt_tokens == 5  # <|endoftext|> begins the document
    assert ask("Once", echo=True).choices[0].text == "Once" + one.choices[0].text
    assert ask([79, 110]).usage.prompt_tokens == 2
    assert len(ask([[79, 110], [111]], n=2).choices) == 4
    assert len(ask(["a", "b"]).choices) == 2
    assert "".join(chunk.choices[0].text for chunk in ask("Once", stream=True)) == one.choices[0].text


@pytest.mark.parametrize(
    ("change", "expected", "param"),
    [
        ({"messages": []}, "at least 1 item", "messages"),
        ({"messages": "hello"}, "valid list", "messages"),
        (
            {"messages": [{"role": "wizard", "content": "x"}]},
            "'system', 'developer', 'user' or 'assistant'",
            "messages",
        ),
        ({"messages": [{"role": "user"}]}, "Field required", "messages"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "the model's context holds 4096", "messages"),
        ({"temperature": "hot"}, "valid number", "temperature"),
        ({"temperature": -1}, "greater than or equal to 0", "temperature"),
        ({"temperature": float("nan")}, "finite", "temperature"),
        ({"top_p": 2}, "less than or equal to 1", "top_p"),
        ({"max_tokens": 0}, "greater than or equal to 1", "max_tokens"),
        ({"max_tokens": "12"}, "valid integer", "max_tokens"),
        ({"max_tokens": 1.5}, "valid integer", "max_tokens"),
        ({"n": 100}, "less than or equal to 16", "n"),
        ({"stop": 5}, "stop", "stop"),
        ({"seed": "x"}, "valid integer", "seed"),
        ({"stream": "yes"}, "valid boolean", "stream"),
        ({"top_logprobs": 3}, "'top_logprobs' needs 'logprobs'", "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools", "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format", "response_format"),
        ({"presence_penalty": 1.0}, "less than or equal to 0", "presence_penalty"),
    ],
)
def test_bad_requests(server: Any, change: dict[str, Any], expected: str, param: str) -> None:
    import json

    body = json.dumps({**ASK, **change})
    for stream in (False, True):
        text = body if not stream or "stream" in change else body[:-1] + ', "stream": true}'
        response = httpx.post(
            server.url + "/v1/chat/completions", content=text, headers={"content-type": "application/json"}
        )
        error = response.json()["error"]
        assert response.status_code == 400
        assert expected in error["message"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_refusals_through_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'") as caught:
        client.chat.completions.create(**{**ASK, "model": "gpt-4o"})
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="tiny", prompt="x" * 9999)
    assert long.value.code == "context_length_exceeded"
    for prompt in ([], [[]], [999], [-1]):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="tiny", prompt=prompt)


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"", 400),
        ("GET", "/v1/chat/completions", None, 405),
        ("GET", "/v1/elsewhere", None, 404),
        ("DELETE", "/", None, 405),
    ],
)
def test_never_a_traceback(server: Any, method: str, path: str, content: bytes | None, status: int) -> None:
    response = httpx.request(method, server.url + path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert "Traceback" not in response.text


def test_a_long_conversation_may_be_cut(serve: Callable[..., Any]) -> None:
    server = serve(context=64)
    talk = [{"role": ("user", "assistant")[i % 2], "content": "x" * 15} for i in range(5)]
    body = {**ASK, "messages": talk, "max_tokens": 8}
    response = httpx.post(server.url + "/v1/chat/completions", json=body)
    assert response.json()["error"]["code"] == "context_length_exceeded"
    response = httpx.post(server.url + "/v1/chat/completions", json={**body, "truncation": "auto"})
    assert response.status_code == 200
    assert response.json()["left_out_messages"] == 2
    body = {"prompt": "x" * 100, "max_tokens": 8, "truncation": "auto"}
    assert httpx.post(server.url + "/v1/completions", json=body).json()["usage"]["prompt_tokens"] == 56


def test_a_base_model_says_where_to_go(serve: Callable[..., Any]) -> None:
    server = serve(stage="pretrain")
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none") as client:
        with pytest.raises(openai.BadRequestError, match="use /v1/completions"):
            client.chat.completions.create(**ASK)
        assert client.completions.create(model="tiny", prompt="").choices[0].text


def test_leaving_frees_the_engine(serve: Callable[..., Any]) -> None:
    server = serve(context=30_000)
    endless = {**ASK, "max_tokens": 29_000}
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        with client.chat.completions.create(**endless, stream=True) as stream:
            next(iter(stream))
        assert server.wait_until_free() < 5
        assert len(server.engine._read) < 20_000
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).chat.completions.create(**endless)
        assert server.wait_until_free() < 5
        assert len(server.engine._read) < 20_000
        assert client.chat.completions.create(**ASK).choices[0].finish_reason == "length"


def test_one_at_a_time_in_turn(client: openai.OpenAI) -> None:
    expected = client.chat.completions.create(**ASK).choices[0].message.content
    answers: list[str] = []

    def ask() -> None:
        answers.append(client.chat.completions.create(**ASK).choices[0].message.content or "")

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [expected] * 6


def test_the_line_has_an_end(serve: Callable[..., Any]) -> None:
    server = serve(max_waiting=1, context=4096)
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        endless = {**ASK, "max_tokens": 4000, "stream": True}
        with client.chat.completions.create(**endless) as first, client.chat.completions.create(**endless):
            next(iter(first))
            end = time.monotonic() + 5
            while len(server.app.state.writer.requests) < 2 and time.monotonic() < end:
                time.sleep(0.01)
            with pytest.raises(openai.InternalServerError, match="too many requests are waiting"):
                client.chat.completions.create(**ASK)
    server.wait_until_free()
