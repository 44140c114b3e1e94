"""A chapter as written: prose and fenced blocks with their line numbers, code by reference, and labels that must exist."""

import ast
import difflib
import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup.base.errors import GroundupError

__all__ = [
    "REPOSITORY", "WIDTH", "BookError", "Fence", "Prose", "check_references", "check_width", "include", "near_miss",
    "place", "read_chapter",
]  # fmt: skip

REPOSITORY = Path(__file__).resolve().parent.parent
WIDTH = 88  # columns of code that fit the page at 7.5 pt
FENCE = re.compile(
    r"^```(?:\{(?P<attributes>[^\n]*)\}|(?P<language>[\w-]*))[ \t]*\n(?P<code>.*?)^```[ \t]*(?:\n|\Z)", re.M | re.S
)
ATTRIBUTE = re.compile(
    r"""\.(?P<cls>[\w-]+)|\#(?P<id>[\w-]+)|(?P<key>[\w-]+)="(?P<value>(?:[^"\\]|\\.)*)"|(?P<junk>\S+)"""
)
TOOL_COMMENT = re.compile(r"  # (?:fmt: skip|noqa\b.*|type: ignore\b.*)$", re.M)  # for the linters, not for the reader
LABEL = re.compile(r"#((?:sec|fig|tbl|lst|eq|ex)-[\w-]+)")
REFERENCE = re.compile(r"(?<![\w@.])@([A-Za-z][\w-]*)")


class BookError(GroundupError):
    """A mistake in a chapter; one line that begins with its file and line."""


@dataclass(frozen=True)
class Prose:
    """Markdown between two fenced blocks, and the line that it begins on."""

    text: str
    line: int


@dataclass(frozen=True)
class Fence:
    """A fenced block: ```{.python .run #id key="value"}; `line` is the line of its opening fence."""

    classes: tuple[str, ...]
    identifier: str
    attributes: dict[str, str]
    code: str
    line: int

    def has(self, name: str) -> bool:
        """Returns whether the block carries the class `name`."""
        return name in self.classes


def place(path: Path, line: int) -> str:
    """Returns `file:line`, the file relative to the current folder where it lies inside it."""
    inside = path.resolve().is_relative_to(Path.cwd())
    return f"{os.path.relpath(path) if inside else path}:{line}"


def near_miss(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the closest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _fence(match: re.Match[str], where: str, line: int) -> Fence:
    classes, identifier, attributes = [], "", {}
    for token in ATTRIBUTE.finditer(match["attributes"] or ""):
        if token["junk"]:
            raise BookError(f'{where}: can\'t read {token["junk"]!r}; a block has .class, #id or key="value"')
        if token["cls"]:
            classes.append(token["cls"])
        elif token["id"]:
            identifier = token["id"]
        else:
            attributes[token["key"]] = token["value"].replace('\\"', '"')
    return Fence(tuple(classes or [match["language"] or ""]), identifier, attributes, match["code"].rstrip("\n"), line)


def read_chapter(path: Path) -> list[Prose | Fence]:
    """Returns the chapter's parts in order. Raises: BookError for a fence that is never closed or can't be read."""
    text = path.read_text(encoding="utf-8")
    parts: list[Prose | Fence] = []
    position = 0

    def prose(end: int) -> None:
        line = text.count("\n", 0, position) + 1
        if stray := re.search(r"^```", text[position:end], re.M):
            broken = line + text.count("\n", position, position + stray.start())
            raise BookError(f"{place(path, broken)}: this fenced block is never closed")
        parts.append(Prose(text[position:end], line))

    for match in FENCE.finditer(text):
        prose(match.start())
        line = text.count("\n", 0, match.start()) + 1
        parts.append(_fence(match, place(path, line), line))
        position = match.end()
    prose(len(text))
    return parts


def check_width(code: str, where_of_line: Iterable[str]) -> None:
    """Raises: BookError naming the first line that doesn't fit the page; `where_of_line` gives each line's place."""
    for line, where in zip(code.splitlines(), where_of_line):
        if len(line) > WIDTH:
            raise BookError(f"{where}: {len(line)} columns, {WIDTH} fit the page: {line.strip()[:50]}...")


def _definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.stmt]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield prefix + node.name, node
            yield from _definitions(node, f"{prefix}{node.name}.")


def include(reference: str, where: str) -> tuple[Path, str, int, int]:
    """Returns the file, the code and its first and last line for `file.py`, `file.py#Name.method` or `file.py#L3-L9`.

    The file is relative to the repository root. A method is dedented. The package's lines may be longer than the page is
    wide; the PDF turns them over. Raises: BookError for a missing file or name.
    """
    file, _, name = reference.partition("#")
    path = REPOSITORY / file
    if not path.is_file():
        raise BookError(f"{where}: include: no file {file} in the repository")
    text = path.read_text(encoding="utf-8")
    first, last = 1, text.count("\n")
    if span := re.fullmatch(r"L(\d+)-L(\d+)", name):
        first, last = int(span[1]), min(int(span[2]), last)
        if first > last:
            raise BookError(f"{where}: include: {file} has no lines {name}")
    elif name:
        found = dict(_definitions(ast.parse(text, file)))
        if name not in found:
            raise BookError(f"{where}: include: {file} has no '{name}'{near_miss(name, found)}")
        node = found[name]
        decorators = getattr(node, "decorator_list", [])
        first, last = min([node.lineno, *(d.lineno for d in decorators)]), node.end_lineno or node.lineno
    code = TOOL_COMMENT.sub("", "\n".join(text.splitlines()[first - 1 : last]))
    return path, textwrap.dedent(code), first, last


def _mentions(part: Prose | Fence) -> Iterator[tuple[str, int]]:
    """Yields (key, line) of every @key in prose, and in the captions of blocks."""
    if isinstance(part, Prose):
        hidden = re.sub(r"`[^`]*`", lambda m: re.sub(r"[^\n]", " ", m[0]), part.text)
        for match in REFERENCE.finditer(hidden):
            yield match[1], part.line + hidden.count("\n", 0, match.start())
        for match in re.finditer(r'\bof="([\w-]+)"', part.text):
            yield match[1], part.line + part.text.count("\n", 0, match.start())
    else:
        for match in REFERENCE.finditer(part.attributes.get("caption", "")):
            yield match[1], part.line


def check_references(chapters: dict[Path, list[Prose | Fence]], citations: Iterable[str]) -> None:
    """Raises: BookError for a reference to a label or source that doesn't exist, or a label given twice."""
    labels: dict[str, str] = {}
    for path, parts in chapters.items():
        for part in parts:
            text = part.text if isinstance(part, Prose) else f"#{part.identifier}\n{part.code}"
            for match in LABEL.finditer(text):
                where = place(path, part.line + text.count("\n", 0, match.start()))
                if match[1] in labels:
                    raise BookError(f"{where}: the label '{match[1]}' is already given at {labels[match[1]]}")
                labels[match[1]] = where
    known = [*labels, *citations]
    for path, parts in chapters.items():
        for part in parts:
            for key, line in _mentions(part):
                if key not in known:
                    where = place(path, line)
                    raise BookError(f"{where}: '{key}' is no label and no source in refs.bib{near_miss(key, known)}")
