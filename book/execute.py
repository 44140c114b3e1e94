"""A chapter as run: cells executed in order, values put into the prose, figures saved, and a record of all that was printed."""

import ast
import contextlib
import importlib
import io
import itertools
import re
import sys
import traceback
from decimal import Decimal
from pathlib import Path
from typing import Any

import drawing
import figures
from source import BookError, Fence, Prose, check_width, include, near_miss, place, read_chapter

__all__ = ["agree", "compare", "execute"]

VALUE = re.compile(r"\{\{\s*(.+?)\s*\}\}")
DRAWN = re.compile(r"\]\(fig:(?P<name>\w+)\)\{(?P<attributes>[^}]*)\}")
# What changes from run to run or from machine to machine: an address in memory, somebody's folder.
UNSTABLE = re.compile(r"\b0x[0-9a-f]{6,}|/(?:home|root|tmp|Users)/\S+")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?%?")


def agree(golden: str, printed: str, units: int = 1) -> bool:
    """Returns whether two printed outputs say the same: words and whole numbers exactly, rounded ones to the last place.

    Another processor may round 0.785 the other way; it can't turn 12 heads into 13. So a number with a decimal point, an
    exponent or a percent sign may differ by `units` in its last printed place, and every other character must be equal.
    A cell that trains something may allow more units, where rounding grows: ```{.python .run tolerance="5"}.
    """
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (golden, printed)]
    if words[0] != words[1]:
        return False
    for old, new in zip(NUMBER.findall(golden), NUMBER.findall(printed)):
        pair = [Decimal(number.rstrip("%").replace(",", "")) for number in (old, new)]
        exponent = min(int(number.as_tuple().exponent) for number in pair)
        rounded = exponent < 0 or "%" in old or "e" in old
        if abs(pair[0] - pair[1]) > (units * Decimal(1).scaleb(exponent) if rounded else 0):
            return False
    return True


def compare(golden: list[dict[str, str]], record: list[dict[str, Any]], path: Path) -> list[str]:
    """Returns one line for each printed output that moved away from the golden one."""
    moved: list[str] = []
    for was, now in itertools.zip_longest(golden, record):
        if was is None or now is None or was["source"] != now["source"]:
            where = place(path, now["line"]) if now else str(path)
            return [*moved, f"{where}: not a cell of the golden outputs; `build.py --accept` takes the new ones"]
        if not agree(was["printed"], now["printed"], now.get("tolerance", 1)):
            lines = itertools.zip_longest(was["printed"].splitlines(), now["printed"].splitlines(), fillvalue="")
            old, new = next((pair for pair in lines if not agree(*pair)), (was["printed"], now["printed"]))
            moved.append(f"{place(path, now['line'])}: printed {new.strip()!r} where the book says {old.strip()!r}")
    return moved


def execute(path: Path, figures: Path) -> tuple[str, list[dict[str, Any]], list[Path]]:
    """Returns the chapter as Markdown for pandoc, the record of its outputs, and the files that it includes.

    Raises: BookError naming file and line of a cell that fails, a line too long, a figure without alternative text.
    """
    parts, run = read_chapter(path), _Run(path, figures)
    if re.search(r"matplotlib|\]\(fig:", path.read_text(encoding="utf-8")):
        drawing.apply_style()
    text = "".join(run.prose(part) if isinstance(part, Prose) else run.fence(part) for part in parts)
    return text, run.record, run.included


class _Run:
    """One chapter's namespace, shared by its cells from top to bottom like a notebook's."""

    def __init__(self, path: Path, figures: Path) -> None:
        self.path, self.figures = path, figures
        self.namespace: dict[str, Any] = {"__name__": "__book__"}
        self.record: list[dict[str, Any]] = []
        self.included: list[Path] = []
        self.cells = 0

    def prose(self, part: Prose) -> str:
        """Returns the prose with {{ expressions }} replaced by their values and drawn figures by their files."""

        def line(match: re.Match[str]) -> int:
            return part.line + part.text.count("\n", 0, match.start())

        text = VALUE.sub(lambda m: self.value(m[1], line(m)), part.text)
        return DRAWN.sub(lambda m: self.drawn(m, line(m)), text)

    def value(self, expression: str, line: int) -> str:
        """Returns str() of an expression in the prose, and records it."""
        where = place(self.path, line)
        try:
            printed = str(eval(compile(expression, where, "eval"), self.namespace))
        except Exception as error:  # whatever a chapter's author mistyped
            raise BookError(f"{where}: {{{{ {expression} }}}} failed: {type(error).__name__}: {error}") from error
        self.record.append({"source": expression, "printed": printed, "line": line})
        return printed

    def fence(self, part: Fence) -> str:
        """Returns what the page shows for a block: its code, then its output and figures."""
        where = place(self.path, part.line)
        code, notes = part.code, ""
        if reference := part.attributes.get("include"):
            file, code, first, last = include(reference, where)
            self.included.append(file)
            notes = f' file="{reference.partition("#")[0]}" lines="{first}–{last}"'
        elif not (part.has("hide") or part.has("test")):
            check_width(code, (place(self.path, part.line + 1 + offset) for offset in itertools.count()))
        shown = output = ""
        if part.has("run") or part.has("test"):
            output = self.run(part, where)
        if not (part.has("hide") or part.has("test")):
            joined = ' joined="true"' if output.startswith("\n```{.output}") else ""
            if part.identifier.startswith("lst-"):
                notes += f' #{part.identifier} caption="{self.caption(part)}"'
            shown = f"```{{.{part.classes[0] or 'text'}{notes}{joined}}}\n{code}\n```\n"
        return shown + output

    def caption(self, part: Fence) -> str:
        """Returns the caption of a listing or figure, its values filled in and its quotes escaped."""
        filled = VALUE.sub(lambda m: self.value(m[1], part.line), part.attributes.get("caption", ""))
        return filled.replace('"', '\\"') if part.identifier.startswith("lst-") else filled

    def run(self, part: Fence, where: str) -> str:
        """Returns the Markdown of a cell's printed output and figures. Raises: BookError naming the line that failed."""
        self.cells += 1
        try:
            printed, shown_value = _run_cell(part.code, self.namespace, self.path, part.line)
        except Exception as error:  # a cell may fail in any way, and `raises` shows the failure on purpose
            if not part.has("raises"):
                line = _failed_line(error, self.path, where)
                raise BookError(f"{line}: the cell failed: {type(error).__name__}: {_first_line(error)}") from error
            printed, shown_value = "", f"{type(error).__name__}: {error}"
        pictures = self.save_figures(part.identifier or f"cell-{self.cells}")
        printed = (printed if pictures else printed + shown_value).rstrip("\n")
        if unstable := UNSTABLE.search(printed):
            raise BookError(f"{where}: the cell prints {unstable[0]!r}, which changes from run to run")
        units = int(part.attributes.get("tolerance", 1))
        source = part.code.partition("\n")[0]
        self.record.append({"source": source, "printed": printed, "line": part.line, "tolerance": units})
        markdown = ""
        if part.has("asis"):
            markdown = f"\n{printed}\n"
        elif printed:
            check_width(printed, itertools.repeat(f"{where}: output"))
            markdown = f"\n```{{.output}}\n{printed}\n```\n"
        for file, width in pictures:
            if not part.attributes.get("alt"):
                raise BookError(f'{where}: the figure has no alternative text; add alt="..." to the block')
            identifier = f"#{part.identifier} " if part.identifier else ""
            alt = part.attributes["alt"].replace('"', '\\"')
            markdown += f'\n![{self.caption(part)}]({file}){{{identifier}width={width:.2f}in alt="{alt}"}}\n'
        return markdown

    def drawn(self, match: re.Match[str], line: int) -> str:
        """Returns the link to a figure that a function of figures.py draws: `![caption](fig:name){#fig-name alt="..."}`."""
        where = place(self.path, line)
        draw = getattr(figures, match["name"], None)
        if draw is None:
            raise BookError(
                f"{where}: figures.py has no function '{match['name']}'{near_miss(match['name'], figures.__all__)}"
            )
        if 'alt="' not in match["attributes"]:
            raise BookError(f'{where}: the figure has no alternative text; add alt="..." after it')
        draw()
        ((file, width),) = self.save_figures(match["name"])
        return f"]({file}){{width={width:.2f}in {match['attributes']}}}"

    def save_figures(self, name: str) -> list[tuple[str, float]]:
        """Saves the open matplotlib figures as SVG; returns their paths (for pandoc) and widths in inches."""
        if "matplotlib.pyplot" not in sys.modules:
            return []
        pyplot = importlib.import_module("matplotlib.pyplot")
        made = []
        self.figures.mkdir(parents=True, exist_ok=True)
        for index, number in enumerate(pyplot.get_fignums()):
            figure = pyplot.figure(number)
            file = self.figures / f"{self.path.stem}-{name}{f'-{index + 1}' if index else ''}.svg"
            figure.savefig(file, metadata={"Date": None})
            made.append((f"{self.figures.name}/{file.name}", figure.get_figwidth()))
        pyplot.close("all")
        return made


def _run_cell(code: str, namespace: dict[str, Any], path: Path, line: int) -> tuple[str, str]:
    """Returns what the cell printed, and the text of its last expression's value (empty for None)."""
    tree = ast.increment_lineno(ast.parse(code, str(path)), line)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as captured:
        exec(compile(tree, str(path), "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(path), "eval"), namespace)
    return captured.getvalue(), "" if value is None else value if isinstance(value, str) else repr(value)


def _failed_line(error: Exception, path: Path, where: str) -> str:
    """Returns the chapter's own line in the error's traceback."""
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(path):
        return place(path, int(where.rpartition(":")[2]) + error.lineno)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return place(path, lines[-1]) if lines and lines[-1] else where


def _first_line(error: Exception) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return message.strip().partition("\n")[0] or "(no message)"
