"""The pages of `groundup inspect` in a real browser, opened as files: they draw without an error and answer the pointer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from groundup.cli import main


@pytest.fixture
def visit(browser: Any, make_project: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Opens the page of a view; fails the test for an error in its script or a request to anywhere."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if not request.url.startswith("file:") else None)

    def visit(view: str) -> Any:
        file = tmp_path / f"{view}.html"
        project = make_project(tmp_path / "my-llm", context=64)
        assert main(["inspect", view, str(project), "abc abc\n<b> abc", "--out", str(file)]) == 0
        page.goto(file.as_uri())
        return page

    yield visit
    page.close()
    assert not complaints


def test_attention(visit: Callable[[str], Any]) -> None:
    page = visit("attention")
    tokens, rows = page.locator(".text .tok"), page.locator("tbody tr")
    assert tokens.count() == 16
    assert "·" in page.locator(".text").inner_text()
    assert page.locator(".heads button").count() == rows.count() == 2
    assert page.locator("b").count() == 0, "what the model read is text, never markup"
    page.locator(".heads button").nth(1).click()
    assert page.locator("section h2").inner_text() == "Layer 0, head 1"
    page.keyboard.press("ArrowLeft")
    assert page.locator("section h2").inner_text() == "Layer 0, head 0"
    tokens.nth(3).click()
    assert "at" in tokens.nth(3).get_attribute("class")
    assert "looks at" in page.locator("section .row").nth(1).inner_text()
    shares = [float(tokens.nth(i).evaluate("e => getComputedStyle(e).getPropertyValue('--a')")) for i in range(16)]
    assert sum(share**2 for share in shares[:4]) == pytest.approx(1, abs=0.02)
    assert not any(shares[4:]), "the future is dark"
    box = page.locator("canvas.map").bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.9 * box["height"])
    assert "from" in page.locator("section > p").inner_text()


def test_logits(visit: Callable[[str], Any]) -> None:
    page = visit("logits")
    lens = page.locator(".lens table")
    assert lens.first.locator("tr").count() == 4  # what was read, the output, the embedding, what truly came next
    wide = lens.count()
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function(f"document.querySelectorAll('.lens table').length > {wide}")  # broken as the text
    assert page.locator(".lens td").count() == 2 * 16
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.set_viewport_size({"width": 1200, "height": 900})
    page.locator(".lens td").nth(2).click()
    assert page.locator("aside tr").count() == 18
    assert "11%" in page.locator("aside").inner_text()
    page.locator(".text .tok").nth(15).click()
    assert "The text ends here." in page.locator("aside").inner_text()


def test_neurons(visit: Callable[[str], Any]) -> None:
    page = visit("neurons")
    assert page.locator("article").count() == 12
    assert "driven by" in page.locator("article").first.inner_text()
    assert page.locator("article").first.locator(".text .tok").count() == 16
