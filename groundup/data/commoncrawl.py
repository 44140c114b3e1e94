"""`groundup data get commoncrawl`: files of a crawl of the web, a few spread over all of it, one polite connection at a time.

Source: https://commoncrawl.org/get-started (a crawl's `warc.paths.gz` and `wet.paths.gz` list its files).
"""

import time
from collections.abc import Iterator
from pathlib import Path

from groundup.base.errors import DataError
from groundup.base.files import text_hash
from groundup.base.log import progress, quantity, say
from groundup.data.config import GetConfig
from groundup.data.decode import Stream
from groundup.data.fetch import Manners, NotFound, download
from groundup.data.warc import Lost, warc_records

__all__ = ["choose", "get", "paths", "wrong"]

EXPANSION = 100  # a list or a WARC that grows more than this is no such thing


def get(config: GetConfig, manners: Manners) -> Path:
    """Returns the folder with the crawl's files; those that lie there already aren't fetched again.

    Raises: DataError for a crawl that doesn't exist, a file that can't be fetched, or one that isn't whole.
    """
    folder = config.to / config.crawl.replace("/", "-")
    listed = paths(config, folder, manners)
    chosen = choose(listed, config.segments)
    say(
        f"{config.crawl}: {len(listed):,} {config.files.upper()} files; {len(chosen)} of them, chosen by a hash of their names"
    )
    sizes = 0
    for number, path in enumerate(chosen, 1):
        target = folder / path.rpartition("/")[2]
        if target.exists():
            say(f"{target}: already there")
        else:
            download(f"{_base(config)}/{path}", target, wrong=wrong, manners=manners)
            say(f"{target}: {quantity(target.stat().st_size)}B, whole ({number} of {len(chosen)})")
            if number < len(chosen):
                time.sleep(config.delay_s)
        sizes += target.stat().st_size
    say(
        f"{folder}: {len(chosen)} files, {quantity(sizes)}B; the pages belong to their sites (https://commoncrawl.org/terms-of-use)"
    )
    return folder


def _base(config: GetConfig) -> str:
    return config.base_url.rstrip("/")


def paths(config: GetConfig, folder: Path, manners: Manners) -> list[str]:
    """Returns the paths of all files of a crawl; the list is kept, hidden, beside the files. Raises: DataError."""
    listing = folder / f".{config.files}.paths.gz"
    if not listing.exists():
        url = f"{_base(config)}/crawl-data/{config.crawl}/{config.files}.paths.gz"
        try:
            download(url, listing, wrong=lambda path: _read(path)[1], manners=manners)
        except DataError as error:
            if not any(folder.iterdir()):
                folder.rmdir()
            if not isinstance(error, NotFound):
                raise
            raise DataError(
                f"{url}: no such crawl; their names are on https://index.commoncrawl.org/, as CC-MAIN-2025-05"
            ) from error
    found, problem = _read(listing)
    if problem:
        raise DataError(f"{listing}: {problem}; delete it and run the same command again")
    return found


def _read(path: Path) -> tuple[list[str], str]:
    """Returns the paths in a list, and what is wrong with it."""
    with Stream(path, EXPANSION) as stream:
        lines = stream.read().decode("utf-8", "replace").split()
        if stream.damage:
            return [], f"is {stream.damage}"
    names = [line.rpartition("/")[2] for line in lines]
    sound = all(
        name.endswith(".gz") and not name.startswith(".") and ".." not in line for name, line in zip(names, lines)
    )
    if not lines or not sound or len(set(names)) < len(names):
        return [], "isn't a list of a crawl's files"
    return lines, ""


def choose(listed: list[str], count: int) -> list[str]:
    """Returns `count` of the paths: the same ones always, spread over the crawl, and more when more are asked for, never others."""
    return sorted(listed, key=text_hash)[:count]


def wrong(path: Path) -> str:
    """Returns what is wrong with a WARC or WET file: a broken gzip member, a record cut short, a digest that isn't its block's."""
    with Stream(path, EXPANSION) as stream, progress(f"checking {path.stem}", None, "records") as bar:
        for problem in _records(stream):
            bar.advance(1)
            if problem:
                return f"is {stream.damage}" if stream.damage else problem
        if stream.damage:
            return f"is {stream.damage}"
        return "" if bar.done else "has no WARC record in it"


def _records(stream: Stream) -> Iterator[str]:
    """Yields "" for each sound record, and what is wrong with the first that isn't."""
    for number, record in enumerate(warc_records(stream, check=True)):
        if isinstance(record, Lost):
            yield record.message if number else "isn't a WARC file"
            continue
        address = record.headers.get("WARC-Target-URI") or record.record_id
        sound = "WARC-Block-Digest" not in record.headers or record.verify_block_digest()
        yield "" if sound else f"holds another record than it says ({address}: its digest differs)"
