"""A vocabulary laid open: how well it serves a text, its longest, idle and suspicious tokens, and how one is made."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.base.log import command, quantity, say
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.foreign import labels
from groundup.tokenizer.io import find, load
from groundup.tokenizer.measure import Tally, Usage, measure, samples

if TYPE_CHECKING:
    from groundup.tokenizer.config import CompareConfig, ShowConfig

__all__ = ["facts", "main", "name", "steps", "suspicious", "table", "tree"]

LONG = 48  # characters of a token that are printed whole
ENOUGH = 100  # tokens of text for each merge, from which a token that never came is suspicious
RUN = 16  # characters: one and the same so often in one token is worth a look
ODD = ("Cc", "Co", "Cn")  # control characters but white space, private use, unassigned


def name(tokenizer: Tokenizer, token: int) -> str:
    """Returns a token as it is printed: quoted, a long run of one character as ' ' × 24, bytes that are no whole character as \\xe2."""
    text = tokenizer.token_bytes(token).decode("utf-8", "backslashreplace")
    if len(text) >= RUN and len(set(text)) == 1:  # nobody counts blanks
        return f"{name_of(text[0])} × {len(text)}"
    if len(text) > LONG:
        return f"{name_of(text[: LONG // 2])[:-1]}…' ({len(text)} characters)"
    return name_of(text)


def name_of(text: str) -> str:
    """Returns a text in quotes, with what can't be seen as an escape."""
    return repr(text) if text.isprintable() and "\\x" not in text else "'" + _escaped(text) + "'"


def _escaped(text: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return "".join(named.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in text)


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Returns the lines of a table: the first column to the left, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heading))]
    return ["  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
            for row in cells]  # fmt: skip


def steps(tokenizer: Tokenizer, used: Iterable[int]) -> set[int]:
    """Returns the ids that the used ones are made of, themselves included."""
    ids = labels(tokenizer)
    needed = set(used)
    for i in range(len(tokenizer.merges) - 1, -1, -1):
        if ids[256 + i] in needed:
            needed.update(ids[part] for part in tokenizer.merges[i])
    return needed


def suspicious(tokenizer: Tokenizer, usage: Usage) -> dict[str, list[int]]:
    """Returns the tokens that a model may stumble over, by reason. What no text held, no model has learnt.

    Source: Land and Bartolo 2024, "Fishing for Magikarp"
    """
    found: dict[str, list[int]] = {
        "no text gives it": [], "never met, nor a step to what was": [], "half a character, never met": [],
        "odd characters": [], f"one character {RUN} times or more": [],
    }  # fmt: skip
    cannot, idle, half, odd, run = found.values()
    needed, special = steps(tokenizer, usage.used), set(tokenizer.specials.values())
    enough = usage.total.tokens >= ENOUGH * len(tokenizer.merges)
    for token in [*labels(tokenizer)[256:], *tokenizer.spare.values()]:
        raw, seen = tokenizer.token_bytes(token), token in usage.used
        if token in special:
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            if token not in needed and enough:
                half.append(token)
            continue
        if not seen and tokenizer.encode_ordinary(text) != [token]:
            cannot.append(token)
        elif token not in needed and enough:
            idle.append(token)
        if any(c == "\ufffd" or (unicodedata.category(c) in ODD and not c.isspace()) for c in text):
            odd.append(token)
        if len(text) >= RUN and len(set(text)) == 1:
            run.append(token)
    return {reason: tokens for reason, tokens in found.items() if tokens}


def tree(tokenizer: Tokenizer, token: int, usage: Usage | None = None) -> list[str]:
    """Returns the lines of a token's merge tree: what it was joined from, down to bytes."""
    ids = labels(tokenizer)
    parts = {ids[256 + i]: (ids[left], ids[right]) for i, (left, right) in enumerate(tokenizer.merges)}
    rank = {ids[256 + i]: i + 1 for i in range(len(tokenizer.merges))}
    lines: list[str] = []

    def draw(token: int, first: str, rest: str) -> None:
        how = f"merge {rank[token]}" if token in rank else "byte" if len(tokenizer.token_bytes(token)) == 1 else "whole"
        used = f", {usage.used[token]:,} times in the text" if usage and token in usage.used else ""
        lines.append(f"{first}{name(tokenizer, token)}  id {token}, {how}{used}")
        for i, part in enumerate(parts.get(token, ())):
            draw(part, rest + ("├── ", "└── ")[i], rest + ("│   ", "    ")[i])

    draw(token, "", "")
    return lines


def facts(tokenizer: Tokenizer) -> str:
    """Returns one line about a vocabulary."""
    parts = [f"256 bytes, {len(tokenizer.merges):,} merges, {len(tokenizer.specials)} specials"]
    parts += [f"{len(tokenizer.spare)} words without a merge"] if tokenizer.spare else []
    parts += [f"text in the form {tokenizer.normal}"] if tokenizer.normal else []
    return f"{tokenizer.vocab_size:,} ids ({', '.join(parts)}); pattern {tokenizer.pattern}"


def shares(heading: str, rows: dict[str, Tally]) -> list[str]:
    """Returns the table of bytes per token by source or by script, the largest first."""
    order = sorted(rows.items(), key=lambda row: (-row[1].bytes, row[0]))
    return table((heading, "bytes", "tokens", "bytes/token", "whole words"),
                 [(key, f"{t.bytes:,}", f"{t.tokens:,}", f"{t.bytes_per_token:.3f}", f"{t.whole / max(t.words, 1):.0%}")
                  for key, t in order])  # fmt: skip


def _some(tokenizer: Tokenizer, tokens: Sequence[int], top: int) -> str:
    more = f"  and {len(tokens) - top:,} more" if len(tokens) > top else ""
    return "  ".join(name(tokenizer, token) for token in tokens[:top]) + more


def report(tokenizer: Tokenizer, usage: Usage, top: int) -> list[str]:
    """Returns the lines of `tokenizer show`."""
    ids = list(labels(tokenizer)[256:])
    longest = sorted(ids, key=lambda i: (-len(tokenizer.token_bytes(i)), i))
    idle = [i for i in ids if i not in usage.used]
    needed = steps(tokenizer, usage.used)
    sources = usage.sources | ({"all": usage.total} if len(usage.sources) > 1 else {})
    lines = [*shares("source", sources), "", *shares("script", usage.scripts), ""]
    lines.append(f"longest tokens: {_some(tokenizer, longest[:top], top)}")
    lines.append(f"most used: {_some(tokenizer, [i for i, _ in usage.used.most_common(top)], top)}")
    only = sum(i in needed for i in idle)
    lines.append(f"never used here: {len(idle):,} of {len(ids):,} merged tokens, {only:,} of them steps to longer ones")
    if rest := [i for i in idle if i not in needed]:
        lines.append(f"  the others: {_some(tokenizer, rest, top)}")
    lines.append("")
    found = suspicious(tokenizer, usage)
    few = usage.total.tokens < ENOUGH * len(tokenizer.merges)
    text = (
        f" ({quantity(usage.total.tokens)} tokens of text are too few to tell which tokens no text holds)"
        if few
        else ""
    )
    lines.append(f"suspicious tokens{text}:" + ("" if found else " none"))
    lines += [f"  {reason}: {len(tokens):,}: {_some(tokenizer, tokens, top)}" for reason, tokens in found.items()]
    return lines


def main(config: "ShowConfig") -> None:
    """Prints what a vocabulary holds and how it serves a text: `groundup tokenizer show`."""
    path = find(config.project, config.name)
    tokenizer = load(path)
    if config.token or config.id is not None:
        wanted = [config.id] if config.id is not None else tokenizer.encode(config.token, "all")
        for token in wanted:
            print("\n".join(tree(tokenizer, token)))
        return
    texts = texts_of(config, config.project)
    usage = measure(tokenizer, texts)
    print("\n".join([str(path), facts(tokenizer), "", *report(tokenizer, usage, config.top)]))
    if config.html is not None:
        from groundup.tokenizer.page import write_page

        write_page(config.html, {str(path): (tokenizer, usage)}, texts)
        say(f"page: {config.html}")
    say(f"next: {command('tokenizer show', config.project, '--token', repr(' the'))}")


def texts_of(config: "ShowConfig | CompareConfig", project: Path) -> list[tuple[str, str]]:
    """Returns the texts to look at, as pairs of a source's name and a text."""
    if config.text:
        return [("text", config.text)]
    return list(samples(config.input, project, config.data, int(config.sample_mb * 1e6), config.invalid))
