"""A page with a text's tokens in colours: one self-contained HTML file, which encodes what its reader types, too."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.base.files import write_text
from groundup.tokenizer.encode import StreamDecoder, Tokenizer
from groundup.tokenizer.measure import Tally, Usage
from groundup.tokenizer.pattern import CUSTOM, PATTERNS
from groundup.tokenizer.show import facts, name, suspicious

__all__ = ["render_page", "write_page"]

EXCERPT = 3000  # characters of each source that are shown
SOURCES = 8
COLOURS = 6


def pieces(tokenizer: Tokenizer, text: str) -> list[dict[str, Any]]:
    """Returns the tokens of a text as spans: id, colour and what is seen. A character stands where its last byte is."""
    decoder, spans = StreamDecoder(tokenizer), []
    for i, token in enumerate(tokenizer.encode_ordinary(text)):
        spans.append({"id": token, "colour": i % COLOURS, "text": decoder.push(token)})
    return spans


def vocabulary(title: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns what the page's script needs to encode as the tokenizer does."""
    pattern = PATTERNS.get(tokenizer.pattern, tokenizer.pattern.removeprefix(CUSTOM))
    whole = tokenizer.spare if tokenizer.whole_words else {}
    return {
        "title": title, "facts": facts(tokenizer), "order": list(tokenizer.byte_order), "pattern": pattern,
        "merges": " ".join(f"{left} {right}" for left, right in tokenizer.merges),
        "labels": tokenizer.labels, "normal": tokenizer.normal,
        "whole": {token.decode(): i for token, i in whole.items() if _is_text(token)},
    }  # fmt: skip


def _is_text(token: bytes) -> bool:
    return "\ufffd" not in token.decode("utf-8", "replace")


def bars(rows: Sequence[Mapping[str, Tally]]) -> list[dict[str, Any]]:
    """Returns for each source or script the bytes per token of every tokenizer, with a width in percent of the best."""
    keys = sorted(
        {key for row in rows for key in row}, key=lambda key: -max(row.get(key, Tally()).bytes for row in rows)
    )
    best = max((row[key].bytes_per_token for row in rows for key in row), default=1) or 1
    return [
        {"name": key, "bytes": f"{max(row.get(key, Tally()).bytes for row in rows):,}",
         "values": [(f"{(t := row.get(key, Tally())).bytes_per_token:.3f}", round(100 * t.bytes_per_token / best, 1)) for row in rows]}
        for key in keys
    ]  # fmt: skip


def render_page(tokenizers: Mapping[str, tuple[Tokenizer, Usage]], texts: Sequence[tuple[str, str]]) -> str:
    """Returns the page's HTML for one tokenizer, or for several beside one another."""
    import jinja2

    excerpts: dict[str, str] = {}
    for source, text in texts:
        if len(excerpts.get(source, "")) < EXCERPT and (source in excerpts or len(excerpts) < SOURCES):
            excerpts[source] = (excerpts.get(source, "") + ("\n\n" if source in excerpts else "") + text)[:EXCERPT]
    shown = [
        {"source": source, "columns": [pieces(tokenizer, text) for tokenizer, _ in tokenizers.values()],
         "bytes": len(text.encode("utf-8", "replace"))}
        for source, text in excerpts.items()
    ]  # fmt: skip
    doubts = [
        (reason, len(tokens), [(token, name(tokenizer, token)) for token in tokens[:40]])
        for tokenizer, usage in list(tokenizers.values())[: len(tokenizers) == 1]
        for reason, tokens in suspicious(tokenizer, usage).items()
    ]
    usages = [usage for _, usage in tokenizers.values()]
    context = {
        "vocabularies": [
            {"short": "ABCDEFGH"[i]} | vocabulary(title, tokenizer) for i, (title, (tokenizer, _)) in enumerate(tokenizers.items())
        ],
        "sources": bars([usage.sources for usage in usages]), "scripts": bars([usage.scripts for usage in usages]),
        "totals": [usage.total for usage in usages], "shown": shown, "doubts": doubts,
        "sample": next(iter(excerpts.values()), "").strip()[:280],
    }  # fmt: skip
    source = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source).render(context)


def write_page(path: Path, tokenizers: Mapping[str, tuple[Tokenizer, Usage]], texts: Sequence[tuple[str, str]]) -> None:
    """Writes the page, atomically."""
    write_text(path, render_page(tokenizers, texts))
