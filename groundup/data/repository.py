"""Git: which files of a work tree count, and the files of a repository that has no work tree, read out of its newest commit."""

import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from groundup.data.config import ReadConfig
from groundup.data.formats import Problem, SourceFile, whole
from groundup.data.kinds import foreign_file
from groundup.data.licence import FILE_CHARS, licence_of_texts, names_licence

__all__ = ["blobs", "is_bare", "worktree_files"]

# A repository may be a stranger's: nothing that its config names is run.
SAFE = (
    "-c",
    "safe.directory=*",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "protocol.allow=never",
)
WEB = re.compile(r"https://(?:github\.com|gitlab\.com)/[\w./-]+")


class Blob(NamedTuple):
    """A file of a commit."""

    path: str
    id: str
    size: int


def is_bare(folder: Path) -> bool:
    """Returns whether a folder is a git repository without a work tree."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def _git(folder: Path, *words: str) -> bytes | None:
    """Returns what git says, None where it can't."""
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", *SAFE, "-C", str(folder), *words], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def worktree_files(folder: Path) -> frozenset[str] | None:
    """Returns the paths in a work tree that its .gitignore doesn't name, None where git can't tell."""
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return None if listed is None else frozenset(listed.decode("utf-8", "surrogateescape").split("\0")) - {""}


def blobs(
    file: SourceFile, config: ReadConfig
) -> Iterator[tuple[SourceFile, io.BufferedReader, dict[str, str]] | Problem]:
    """Yields the text files of a repository's newest commit with their bytes and what is known of them; the rest is set aside."""
    commit = _git(file.path, "rev-parse", "--verify", "HEAD^{commit}")
    if commit is None:
        missing = "git isn't installed" if shutil.which("git") is None else "it has no commit, or isn't whole"
        yield Problem(file.label, "unreadable", f"is a git repository that can't be read ({missing})")
        return
    head = commit.decode().strip()
    about = {"commit": head, "date": (_git(file.path, "log", "-1", "--format=%cs", head) or b"").decode().strip()}
    remote = (_git(file.path, "config", "--get", "remote.origin.url") or b"").decode("utf-8", "replace").strip()
    page = remote.removesuffix(".git") if WEB.fullmatch(remote) else ""
    listed = list(_listed(_git(file.path, "ls-tree", "-r", "-z", "-l", head) or b""))
    with _Reader(file.path) as reader:
        licences = _licences(listed, reader)
        for blob in listed:
            label = whole(f"{file.label}/{blob.path}")
            if why := foreign_file(blob.path, config):
                yield Problem(label, why[0], why[1], False)
            elif blob.size > config.max_record_mb << 20:
                yield Problem(label, "too_large", f"is larger than {config.max_record_mb} MB (read.max_record_mb)")
            elif (data := reader.read(blob)) is None:
                yield Problem(file.label, "damaged", f"lacks an object of its newest commit ({blob.path})")
            else:
                licence = next((licences[f] for f in map(str, PurePosixPath(blob.path).parents) if f in licences), "")
                known = {**about, "url": f"{page}/blob/{head}/{blob.path}" if page else ""}
                stream = cast(io.BufferedReader, io.BufferedReader(io.BytesIO(data)))  # type: ignore[arg-type]
                yield (
                    SourceFile(Path(blob.path), label, file.asked, licence, file.source),
                    stream,
                    {k: v for k, v in known.items() if v},
                )


def _listed(tree: bytes) -> Iterator[Blob]:
    """Yields the plain files of `git ls-tree -r -z -l`; links and submodules aren't any."""
    for entry in tree.decode("utf-8", "surrogateescape").split("\0"):
        about, _, path = entry.partition("\t")
        if len(fields := about.split()) == 4 and fields[0] in ("100644", "100755"):
            yield Blob(path, fields[2], int(fields[3]) if fields[3].isdigit() else 0)  # a lost object has no size


def _licences(listed: list[Blob], reader: "_Reader") -> dict[str, str]:
    """Returns the licence of each folder that names one."""
    texts: dict[str, dict[str, str]] = {}
    for blob in listed:
        path = PurePosixPath(blob.path)
        if names_licence(path.name) and blob.size <= FILE_CHARS * 4 and (data := reader.read(blob)) is not None:
            texts.setdefault(str(path.parent), {})[path.name] = data.decode("utf-8", "replace")
    return {folder: found for folder, files in texts.items() if (found := licence_of_texts(files))}


class _Reader:
    """One `git cat-file --batch`, asked for a blob at a time."""

    def __init__(self, folder: Path) -> None:
        command = ["git", *SAFE, "-C", str(folder), "cat-file", "--batch"]
        self._git = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._git.communicate()

    def read(self, blob: Blob) -> bytes | None:
        """Returns a blob's bytes, None where the repository lacks it."""
        assert self._git.stdin is not None
        assert self._git.stdout is not None
        try:
            self._git.stdin.write(f"{blob.id}\n".encode())
            self._git.stdin.flush()
        except BrokenPipeError:
            return None
        head = self._git.stdout.readline().split()
        if len(head) != 3:
            return None
        data = self._git.stdout.read(int(head[2]) + 1)
        return data[:-1] if len(data) > int(head[2]) else None
