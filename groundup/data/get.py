"""`groundup data get`: public data sets by name, with their hash: resumed where the line broke, never half a file, never another file."""

import os
import shutil
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from groundup.base.errors import ConfigError, DataError
from groundup.base.files import atomic_file, os_error, sha256
from groundup.base.log import command, progress, quantity, say
from groundup.data.config import GetConfig

__all__ = ["DataSet", "get", "main", "registry"]

RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}
BLOCK_BYTES = 1 << 18
LONGEST_PAUSE_S = 30.0


class DataSet(NamedTuple):
    """One file that anybody may fetch. `local` is its place in a folder of such files ($GROUNDUP_DATA)."""

    name: str
    about: str
    url: str
    sha256: str
    bytes: int
    licence: str
    local: str

    @property
    def file(self) -> str:
        """The file's name where it is put."""
        return Path(self.local).name


def registry(path: Path | None = None) -> dict[str, DataSet]:
    """Returns the registered data sets by name (from sets.toml beside this module)."""
    table = tomllib.loads((path or Path(__file__).with_name("sets.toml")).read_text(encoding="utf-8"))
    return {name: DataSet(name, **entry) for name, entry in table.items()}


def get(
    name: str,
    to: Path,
    *,
    sets: dict[str, DataSet] | None = None,
    retries: int = 5,
    timeout_s: float = 30.0,
    pause_s: float = 1.0,
) -> Path:
    """Returns the path of a data set's file in the folder `to`, fetched if it isn't there whole.

    Looks in $GROUNDUP_DATA first. Raises: ConfigError for an unknown name, DataError where it can't be fetched or isn't the same file.
    """
    known = registry() if sets is None else sets
    if name not in known:
        raise ConfigError(f"{name}: not a registered data set; there are {', '.join(sorted(known))}")
    dataset = known[name]
    target = to / dataset.file
    if target.exists():
        if sha256(target) == dataset.sha256:
            say(f"{target}: already there")
            return target
        raise DataError(
            f"{target}: is there, but isn't {name} (its sha256 differs); move it away and run the same command again"
        )
    local = Path(os.environ["GROUNDUP_DATA"]) / dataset.local if os.environ.get("GROUNDUP_DATA") else None
    if local is not None and local.is_file():
        if sha256(local) != dataset.sha256:
            raise DataError(
                f"{local}: isn't {name} (its sha256 differs from the registry's); mend it or unset GROUNDUP_DATA"
            )
        with atomic_file(target) as temporary:
            shutil.copyfile(local, temporary)
        say(f"{target}: {quantity(dataset.bytes)}B from {local} ({dataset.licence})")
        return target
    _download(dataset, target, retries, timeout_s, pause_s)
    say(f"{target}: {quantity(dataset.bytes)}B from {dataset.url} ({dataset.licence})")
    return target


def _download(dataset: DataSet, target: Path, retries: int, timeout_s: float, pause_s: float) -> None:
    """Fetches into TARGET.part, continuing what an earlier attempt left, and renames it once its hash is right."""
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failure, attempt = "", 0
    with progress(f"fetching {dataset.name}", dataset.bytes, "B") as bar:
        for attempt in range(1, retries + 1):
            failure, again = _attempt(dataset, part, timeout_s, bar.advance)
            if not again:
                break
            if attempt < retries:
                time.sleep(min(pause_s * 2 ** (attempt - 1), LONGEST_PAUSE_S))
    if failure:
        have = _size(part)
        kept = f"; the first {have:,} bytes are kept for the next attempt" if have else ""
        raise DataError(f"{dataset.url}: not fetched after {attempt} attempt{'s' * (attempt > 1)} ({failure}){kept}")
    if (digest := sha256(part)) != dataset.sha256:
        part.unlink()
        raise DataError(
            f"{dataset.url}: isn't the registered file (sha256 {digest[:16]}..., expected {dataset.sha256[:16]}...); nothing was kept"
        )
    os.replace(part, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(dataset: DataSet, part: Path, timeout_s: float, advance: Callable[[float], None]) -> tuple[str, bool]:
    """Returns what failed ("" if the file is complete) and whether another attempt may help."""
    try:
        _continue(dataset, part, timeout_s, advance)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what lies here is longer than what the server has
            part.unlink(missing_ok=True)
        return f"the server answers {error.code} {error.reason}", error.code == 416 or error.code in RETRY_STATUS
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        return str(getattr(error, "reason", "") or error) or type(error).__name__, True
    if _size(part) < dataset.bytes:
        return f"the connection ended after {_size(part):,} of {dataset.bytes:,} bytes", True
    return "", False


def _continue(dataset: DataSet, part: Path, timeout_s: float, advance: Callable[[float], None]) -> None:
    """Appends the missing rest of the file to `part`; begins anew where the server doesn't know ranges."""
    have = part.stat().st_size if part.exists() else 0
    if have >= dataset.bytes:
        return
    headers = {"User-Agent": "groundup"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(dataset.url, headers=headers), timeout=timeout_s) as answer:
        append = have and answer.status == 206
        with open(part, "ab" if append else "wb") as file:
            advance(have if append else 0)
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                advance(len(block))
                if file.tell() > dataset.bytes:  # not the registered file; the hash will say so
                    break
            file.flush()
            os.fsync(file.fileno())


def main(config: GetConfig) -> None:
    """Fetches one data set, or prints the list."""
    if not config.dataset:
        for dataset in registry().values():
            say(f"{dataset.name:18}{quantity(dataset.bytes) + 'B':>8}  {dataset.about} ({dataset.licence})")
        say(f"\nfetch one: {command('data', 'get', 'tinyshakespeare')}")
        return
    try:
        path = get(config.dataset, config.to, retries=config.retries, timeout_s=config.timeout_s)
    except OSError as error:
        raise os_error(error, config.to) from error
    say(f"next: {command('data', 'build', 'my-llm', '--input', path)}")
