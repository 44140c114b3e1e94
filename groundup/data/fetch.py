"""One file over HTTP: resumed where the line broke, asked for politely, and under its own name only when it is whole."""

import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from groundup import __version__
from groundup.base.errors import DataError
from groundup.base.log import Progress, progress

__all__ = ["PATIENT", "Manners", "NotFound", "download"]

RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}
BLOCK_BYTES = 1 << 18
LONGEST_PAUSE_S = 30.0  # of our own; where the server names a longer one, that is kept to ...
LONGEST_WAIT_S = 600.0  # ... up to this
RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")  # Content-Range: bytes 100-199/200, or */200


@dataclass(frozen=True)
class Manners:
    """How a server is asked again: attempts without a new byte, seconds of silence, and the first pause, which doubles."""

    retries: int = 5
    timeout_s: float = 30.0
    pause_s: float = 1.0


PATIENT = Manners()


class NotFound(DataError):
    """The server has no such file."""


class Outcome(NamedTuple):
    """What came of an attempt: "" or what failed, whether another may help, and how long the server asks us to wait."""

    failure: str = ""
    again: bool = False
    wait_s: float = 0.0
    status: int = 0


def download(url: str, target: Path, *, size: int | None = None, wrong: Callable[[Path], str] | None = None,
             manners: Manners = PATIENT) -> None:  # fmt: skip
    """Fetches into TARGET.part, continuing what an earlier attempt left, and renames it once it is whole.

    `size` is the number of bytes where it is known beforehand; `wrong` looks at the finished file and returns what isn't right with it.
    Raises: NotFound; DataError where it can't be fetched (the beginning is kept) or isn't what it should be (nothing is kept).
    """
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    outcome, attempts, fruitless, best = Outcome(), 0, 0, _size(part)
    with progress(f"fetching {target.name}", size, "B") as bar:
        while fruitless < manners.retries:
            if attempts:
                time.sleep(max(outcome.wait_s, min(manners.pause_s * 2 ** max(fruitless - 1, 0), LONGEST_PAUSE_S)))
            outcome, attempts = _attempt(url, part, size, manners.timeout_s, bar), attempts + 1
            if not outcome.again:
                break
            fruitless, best = 1 if _size(part) > best else fruitless + 1, max(best, _size(part))
    if outcome.failure:
        have = _size(part)
        kept = f"; the first {have:,} bytes are kept for the next attempt" if have else ""
        kind = NotFound if outcome.status in (404, 410) else DataError
        raise kind(f"{url}: not fetched after {attempts} attempt{'s' * (attempts > 1)} ({outcome.failure}){kept}")
    if problem := wrong(part) if wrong else "":
        part.unlink()
        raise DataError(f"{url}: {problem}; nothing was kept")
    os.replace(part, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(url: str, part: Path, size: int | None, timeout_s: float, bar: Progress) -> Outcome:
    """Returns what came of one request for what is missing of the file."""
    have = _size(part)
    if size is not None and have >= size:
        return Outcome()
    try:
        total = _continue(url, part, have, size, timeout_s, bar)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing lies beyond what we have: it is whole, or longer than what the server has
            found = RANGE.search(error.headers.get("Content-Range") or "")
            if size is None and found and int(found[1]) == have:
                return Outcome()
            part.unlink(missing_ok=True)
        failure = f"the server answers {error.code} {error.reason}"
        return Outcome(failure, error.code == 416 or error.code in RETRY_STATUS, _wait_s(error.headers), error.code)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        return Outcome(str(getattr(error, "reason", "") or error) or type(error).__name__, True)
    if total is not None and _size(part) < total:
        return Outcome(f"the connection ended after {_size(part):,} of {total:,} bytes", True)
    return Outcome()


def _wait_s(headers: Any) -> float:
    """Returns the seconds that a busy server asks us to wait, 0 where it names none."""
    asked = (headers.get("Retry-After") or "").strip()
    return min(float(asked), LONGEST_WAIT_S) if asked.isdigit() else 0.0


def _continue(url: str, part: Path, have: int, size: int | None, timeout_s: float, bar: Progress) -> int | None:
    """Appends the missing rest to `part`, beginning anew where the server knows no ranges; returns the whole file's length if known."""
    headers = {"User-Agent": f"groundup/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s) as answer:
        append = have > 0 and answer.status == 206
        length = answer.headers.get("Content-Length") or ""
        found = RANGE.search(answer.headers.get("Content-Range") or "")
        total = size or (
            int(found[1]) if append and found else have * append + int(length) if length.isdigit() else None
        )
        bar.total, bar.done = total, float(have if append else 0)
        with open(part, "ab" if append else "wb") as file:
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                bar.advance(len(block))
                if total is not None and file.tell() > total:  # not the file that was promised; the check will say so
                    break
            file.flush()
            os.fsync(file.fileno())
    return total
