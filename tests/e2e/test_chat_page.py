"""The chat page in a real browser, on a server that was started from the command line."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

WAIT_MS = 20_000


@pytest.fixture(scope="module")
def serve(
    make_project: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    """Starts `groundup serve` on a tiny model; returns its address and its process."""
    running = []

    def start(**model: Any) -> tuple[str, subprocess.Popen[str]]:
        project = make_project(tmp_path_factory.mktemp("page") / "my-llm", **model)
        words = [sys.executable, "-m", "groundup", "serve", str(project), "--port", "0"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return re.search(r"http://[\d.:]+", process.stdout.readline())[0], process  # type: ignore[union-attr,index]

    yield start
    for process in running:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def url(serve: Callable[..., Any]) -> str:
    return serve(context=30_000)[0]


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """The page, freshly opened; a message in its console or an uncaught error fails the test."""
    context, complaints = browser.new_context(), []
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    page.get_by_role("heading", name="What would you like to ask?").wait_for()
    yield page
    context.close()
    assert complaints == []


def ask(page: Any, words: str, longest: int = 29_000) -> Any:
    """Types a message and sends it; returns the answer's element."""
    page.evaluate("n => { settings.maxTokens = n; }", longest)
    page.get_by_role("textbox", name="Your message").fill(words)
    page.keyboard.press("Enter")
    return page.get_by_role("article", name="Answer").last


def grown(page: Any, answer: Any) -> None:
    """Waits until the answer is longer than it was: it is being written."""
    before = len(answer.locator(".said").inner_text())
    end = time.monotonic() + WAIT_MS / 1000
    while len(answer.locator(".said").inner_text()) <= before:
        assert time.monotonic() < end
        page.wait_for_timeout(20)


def freed(url: str) -> bool:
    """Returns whether the server soon has no request left."""
    end = time.monotonic() + 5
    while httpx.get(url + "/health").json()["requests"]:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_ask_and_see_the_answer_being_written(page: Any, url: str) -> None:
    send = page.get_by_role("button", name="Send")
    assert send.is_disabled()
    answer = ask(page, "hello\nthere")
    assert page.get_by_role("article", name="You").inner_text() == "hello\nthere"
    grown(page, answer)
    grown(page, answer)
    page.get_by_role("button", name="Stop").click()
    send.wait_for()
    assert "stopped" in answer.inner_text()
    assert freed(url)
    length = len(answer.locator(".said").inner_text())
    page.wait_for_timeout(200)
    assert len(answer.locator(".said").inner_text()) == length


def test_an_answer_that_ends(page: Any) -> None:
    answer = ask(page, "hello", longest=15)
    answer.get_by_text("15 tokens").wait_for()
    assert len(answer.locator(".said").text_content()) == 15
    assert "cut at the longest answer" in answer.inner_text()
    assert page.locator("#announce").text_content() == answer.locator(".said").text_content()  # for screen readers


def test_regenerate(page: Any) -> None:
    first = ask(page, "hello", longest=30)
    first.get_by_text("30 tokens").wait_for()
    text = first.locator(".said").text_content()
    page.get_by_role("button", name="Write the answer anew").click()
    page.wait_for_function("old => messages.length === 2 && messages[1].content !== old && !writing", arg=text)
    assert page.get_by_role("article", name="Answer").count() == 1
    ask(page, "and more", longest=5)
    page.get_by_text("5 tokens,").wait_for()
    assert page.get_by_role("button", name="Write the answer anew").count() == 1  # only under the last one
    sent = page.evaluate("messages.map(m => m.role)")
    assert sent == ["user", "assistant", "user", "assistant"]


def test_keyboard_alone(page: Any) -> None:
    page.keyboard.type("one")  # the field has the focus from the start
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.evaluate("settings.maxTokens = 29000")
    page.keyboard.press("Enter")
    grown(page, page.get_by_role("article", name="Answer"))
    assert page.get_by_role("article", name="You").inner_text() == "one\ntwo"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Send").wait_for()
    page.keyboard.type("next")  # and has it again
    assert page.get_by_role("textbox", name="Your message").input_value() == "next"
    page.keyboard.press("Control+Shift+O")
    page.get_by_role("heading", name="What would you like to ask?").wait_for()


def test_a_new_chat_stops_the_old_one(page: Any, url: str) -> None:
    grown(page, ask(page, "hello"))
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("heading", name="What would you like to ask?").wait_for()
    assert page.get_by_role("article").count() == 0
    assert freed(url)
    ask(page, "again", longest=4).get_by_text("4 tokens").wait_for()
    assert page.get_by_role("article").count() == 2


def test_settings_are_kept(page: Any) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Longest answer, in tokens").fill("7")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("System message").fill("be brief")
    page.get_by_role("button", name="Done").click()
    page.reload()
    page.get_by_role("heading", name="What would you like to ask?").wait_for()
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("textbox", name="Your message").fill("hello")
        page.get_by_role("button", name="Send").click()
    body = sent.value.post_data_json
    assert (body["max_tokens"], body["temperature"], body["messages"][0]["content"]) == (7, 0, "be brief")
    page.get_by_text("7 tokens").wait_for()
    assert page.get_by_role("article", name="Answer").locator(".said").text_content() == " " * 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_and_can_be_read(browser: Any, url: str, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    ask(page, "x" * 300, longest=40).get_by_text("40 tokens").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (".user .said", ".assistant .said", ".under span", "h1", ".facts"):
        assert contrast(page, selector) >= 4.5, selector
    context.close()


def contrast(page: Any, selector: str) -> float:
    """Returns the contrast of a text with what stands behind it, by WCAG 2, section 1.4.3."""
    colours = page.evaluate(
        """selector => { let e = document.querySelector(selector); const text = getComputedStyle(e).color;
            while (getComputedStyle(e).backgroundColor === "rgba(0, 0, 0, 0)") e = e.parentElement;
            return [text, getComputedStyle(e).backgroundColor]; }""",
        selector,
    )

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def test_a_conversation_longer_than_the_context(browser: Any, serve: Callable[..., Any]) -> None:
    url, process = serve(context=64)
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    for number in range(4):
        ask(page, f"question {number}", longest=8)
        page.wait_for_function("n => messages.length === n", arg=2 * number + 2)
    line = page.get_by_text("The model no longer sees what is above.")
    assert line.count() == 1
    above = line.evaluate("line => [...line.parentElement.children].indexOf(line)")
    assert above == 4  # of the four questions, two are out of sight
    ask(page, "y" * 99, longest=8)
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "the model's context holds 64" in alert.inner_text()
    process.terminate()
    process.wait(20)
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("The server can’t be reached.").wait_for()
    context.close()


def test_a_base_model_continues_the_text(browser: Any, serve: Callable[..., Any]) -> None:
    url, _ = serve(stage="pretrain")
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.get_by_role("heading", name="How does the text begin?").wait_for()
    with page.expect_request("**/v1/completions") as sent:
        page.get_by_role("button", name="Once upon a time").click()
    assert sent.value.post_data_json["prompt"] == "Once upon a time"
    page.get_by_role("button", name="Write the answer anew").wait_for()
    with page.expect_request("**/v1/completions") as sent:
        ask(page, " and", longest=3)
    assert re.fullmatch("Once upon a time[a-h ]+ and", sent.value.post_data_json["prompt"])
    context.close()
