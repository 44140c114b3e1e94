"""Files that lie elsewhere: a URL where a path may stand (s3://, gs://, https://, memory://...), opened through fsspec.

A URL travels as a `Path`, which keeps only one of two slashes (s3:/bucket/x); `address` gives it back.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from groundup.base.errors import DataError

__all__ = ["Remote", "address", "files_at", "identity", "open_bytes"]

URL = re.compile(r"([a-z][a-z0-9+]+):/+(.*)", re.DOTALL)  # two letters at least: C:/ is a drive
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp", "https": "aiohttp",
            "hf": "huggingface_hub", "sftp": "paramiko", "ssh": "paramiko", "oci": "ocifs", "oss": "ossfs"}  # fmt: skip

# Where their packages look for what lets a user in.
LOGINS = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what `aws configure` asks for",
          "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
          "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", "hf": "HF_TOKEN, or `hf auth login`"}  # fmt: skip


class Remote(NamedTuple):
    """A file at an address. `tag` changes when the file does (its size, date, hash: what the storage knows)."""

    url: str
    size: int
    tag: str


def address(path: Path | str) -> str:
    """Returns the URL that a path stands for, "" for a file of this machine."""
    found = URL.fullmatch(str(path))
    return f"{found[1]}://{'/' * (found[1] == 'file')}{found[2]}" if found else ""


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Turns what a storage says into one line. Raises: DataError."""
    scheme = url.partition("://")[0]
    try:
        yield
    except ImportError as error:
        raise DataError(
            f"{url}: to read {scheme}:// addresses: pip install {PACKAGES.get(scheme, error.name or scheme)}"
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{url}: no such file or folder") from error
    except DataError:
        raise
    except Exception as error:  # every storage has exceptions of its own
        why = " ".join(str(error).split()) or type(error).__name__
        closed = isinstance(error, PermissionError) or "credential" in why.lower()
        remedy = f"; it takes {LOGINS[scheme]}" if closed and scheme in LOGINS else ""
        raise DataError(f"{url}: can't be read ({why[:200]}){remedy}") from error


def open_bytes(path: Path | str) -> IO[bytes]:
    """Returns a file, here or elsewhere, open for reading. Raises: OSError; DataError for an address that can't be read."""
    url = address(path)
    if not url:
        return open(path, "rb")
    import fsspec

    with _named(url):
        return fsspec.open(url, "rb").open()


def files_at(path: Path | str) -> list[Remote]:
    """Returns the file at an address, or all below it (or all that fit its * and ?), by name. Raises: DataError."""
    import fsspec

    url = address(path)
    with _named(url):
        storage, place = fsspec.core.url_to_fs(url)
        if "*" in url or ("?" in url and not url.startswith("http")):
            found = storage.glob(place, detail=True)
        elif (info := storage.info(place))["type"] == "directory":
            found = storage.find(place, detail=True)
        else:
            return [Remote(url, int(info.get("size") or 0), _tag(info))]
        if not found:
            raise FileNotFoundError(url)
        return [Remote(storage.unstrip_protocol(name), int(info.get("size") or 0), _tag(info))
                for name, info in sorted(found.items()) if info["type"] == "file"]  # fmt: skip


def _tag(info: dict[str, Any]) -> str:
    """Returns what changes when a file does, as far as its storage tells."""
    known = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "created", "md5", "md5Hash", "sha256")
    return hashlib.sha256(repr([str(info.get(key)) for key in known]).encode()).hexdigest()[:16]


def identity(path: Path | str) -> str:
    """Returns one hash for what lies at an address now. Raises: DataError."""
    entries = [f"{found.url}\0{found.tag}" for found in files_at(path)]
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()[:16]
