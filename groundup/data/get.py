"""`groundup data get`: public data sets by name, with their hash: resumed where the line broke, never half a file, never another file."""

import os
import shutil
import tomllib
from pathlib import Path
from typing import NamedTuple

from groundup.base.errors import ConfigError, DataError
from groundup.base.files import atomic_file, os_error, sha256
from groundup.base.log import command, quantity, say
from groundup.data import commoncrawl
from groundup.data.config import GetConfig
from groundup.data.fetch import PATIENT, Manners, download

__all__ = ["DataSet", "get", "main", "registry"]


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
    manners: Manners = PATIENT,
) -> Path:
    """Returns the path of a data set's file in the folder `to`, fetched if it isn't there whole.

    Looks in $GROUNDUP_DATA first. Raises: ConfigError for an unknown name, DataError where it can't be fetched or isn't the same file.
    """
    known = registry() if sets is None else sets
    if name not in known:
        raise ConfigError(f"{name}: not a registered data set; there are {', '.join(sorted((*known, 'commoncrawl')))}")
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

    def wrong(path: Path) -> str:
        """Returns why the file isn't the registered one."""
        digest = sha256(path)
        expected = f"(sha256 {digest[:16]}..., expected {dataset.sha256[:16]}...)"
        return "" if digest == dataset.sha256 else f"isn't the registered file {expected}"

    download(dataset.url, target, size=dataset.bytes, wrong=wrong, manners=manners)
    say(f"{target}: {quantity(dataset.bytes)}B from {dataset.url} ({dataset.licence})")
    return target


def main(config: GetConfig) -> None:
    """Fetches one data set or a sample of a crawl, or prints the list."""
    if not config.dataset:
        for dataset in registry().values():
            say(f"{dataset.name:18}{quantity(dataset.bytes) + 'B':>8}  {dataset.about} ({dataset.licence})")
        say(
            f"{'commoncrawl':18}{'':8}  files of a crawl of the web, WARC or WET: --crawl ID --segments N (their sites' own terms)"
        )
        say(f"\nfetch one: {command('data', 'get', 'tinyshakespeare')}")
        return
    manners = Manners(config.retries, config.timeout_s)
    try:
        if config.dataset == "commoncrawl":
            path = commoncrawl.get(config, manners)
        else:
            path = get(config.dataset, config.to, manners=manners)
    except BrokenPipeError:
        raise  # nobody reads on what is said
    except OSError as error:
        raise os_error(error, config.to) from error
    say(f"next: {command('data', 'build', 'my-llm', '--input', path)}")
