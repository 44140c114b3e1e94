"""Raw files become extracted parts in the workers that read them: no record travels between processes.

The files are cut into units of some megabytes, whatever the number of workers; so are a unit's documents into parts. A unit that is large
beside the others (one WARC, say) is taken by several workers: each reads it all, which is quick, and extracts the parts that no other
has claimed, so that all are done at the same time.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from groundup.data.config import ReadConfig
from groundup.data.decode import Stream
from groundup.data.engine import batches
from groundup.data.read import Problem, Record, SourceFile, read_file
from groundup.data.rows import is_whole
from groundup.data.sources import file_bytes
from groundup.data.stages import extract_part

__all__ = ["PART_BYTES", "Aside", "Reading", "Taken", "Watch", "part_path", "readings", "take"]

UNIT_BYTES, UNIT_FILES = 8 << 20, 500  # of raw files; small ones share a unit
PART_BYTES, PART_RECORDS = 2 << 20, 400  # of a part: large enough to be worth a file, small enough to lose in a kill
TURNS = 16  # at most, for one unit
CLAIM = ".claim"  # beside a part that several workers might make
PLACE = ".place"  # of a task: how far it has read
SHOWN = 100  # problems that are told in full


@dataclass
class Aside:
    """What couldn't be read or wasn't meant to be, summed up: it doesn't grow with the corpus."""

    counts: Counter[str] = field(default_factory=Counter)  # rule -> how often
    examples: dict[str, str] = field(default_factory=dict)  # rule -> the first file
    damage: list[Problem] = field(default_factory=list)  # the first ones
    damages: int = 0  # how many there are
    broken: Problem | None = None  # the first file that is damaged and held documents

    def add(self, problem: Problem) -> None:
        """Counts a problem."""
        self.counts[problem.rule] += 1
        self.examples.setdefault(problem.rule, problem.file)
        if problem.damage:
            self.damages += 1
            if len(self.damage) < SHOWN:
                self.damage.append(problem)
        if problem.rule == "damaged" and self.broken is None:
            self.broken = problem

    def join(self, other: "Aside") -> None:
        """Adds what another has counted."""
        self.counts.update(other.counts)
        self.examples = other.examples | self.examples
        self.damage = (self.damage + other.damage)[:SHOWN]
        self.damages += other.damages
        self.broken = self.broken or other.broken


class Reading(NamedTuple):
    """A task: a unit's parts, as far as the unit's other `turns` don't claim them first."""

    folder: Path
    unit: int
    files: tuple[SourceFile, ...]
    turn: int
    turns: int
    size: int  # of the files, in bytes
    config: ReadConfig

    @property
    def place(self) -> Path:
        """Where the task says how many bytes of its files it has read."""
        return self.folder / f"reading-{self.unit:06d}-{self.turn:02d}{PLACE}"

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].path}{more}"


class Taken(NamedTuple):
    """What a task found: how many parts the unit has, what was left aside, and whether a file that is whole held documents."""

    unit: int
    turn: int
    parts: int
    aside: Aside
    sound: bool


def readings(files: Sequence[SourceFile], folder: Path, processes: int, config: ReadConfig) -> list[Reading]:
    """Returns the tasks. How many turns a unit is taken in depends on the processes; what its parts are called and hold doesn't."""
    for kind in (CLAIM, PLACE):
        for left in folder.glob(f"*{kind}"):
            left.unlink()  # of a run that was killed
    sized = ((file, file_bytes(file)) for file in files)
    units = [tuple(zip(*unit)) for unit in batches(sized, lambda item: item[1], UNIT_BYTES, UNIT_FILES)]
    share = sum(sum(sizes) for _, sizes in units) / (4 * processes)
    found = []
    for number, (unit, sizes) in enumerate(units):
        turns = min(processes, TURNS) if sum(sizes) > share else 1
        found += [Reading(folder, number, unit, turn, turns, sum(sizes), config) for turn in range(turns)]
    return found


def _claimed(path: Path, number: int, task: Reading) -> bool:
    """Returns whether a part is for this task: the first to ask has it, and has it still if its worker dies and it begins again."""
    claim = path.with_suffix(CLAIM)
    try:
        os.symlink(str(task.turn), claim)  # there with what it says, or not there
    except FileExistsError:
        return os.readlink(claim) == str(task.turn)
    except OSError:  # a disk without links: the parts are dealt out
        return number % task.turns == task.turn
    return True


def part_path(folder: Path, unit: int, part: int) -> Path:
    """Returns where an extracted part lies; in the order of these names the parts are in the files' order."""
    return folder / f"extracted-{unit:06d}-{part:06d}.parquet"


class _Reader:
    """The records of a unit's files, and what was met on the way."""

    def __init__(self, task: Reading) -> None:
        self.task, self.aside, self.sound = task, Aside(), False
        self._before, self._opened = 0, list[Stream]()

    def place(self) -> int:
        """Returns how many bytes of the files have been read."""
        return self._before + sum(stream.place() for stream in self._opened)

    def records(self) -> Iterator[Record]:
        """Yields the records of all files."""
        for file in self.task.files:
            count, damaged = 0, False
            for item in read_file(file, self.task.config, self._opened):
                if isinstance(item, Problem):
                    self.aside.add(item)
                    damaged |= item.rule == "damaged"
                else:
                    count += 1
                    yield item
            self.sound |= count > 0 and not damaged
            self._before = self.place()
            self._opened.clear()


def take(task: Reading) -> Taken:
    """Writes the parts of a unit that it can claim, but for those that a killed run has left whole; returns what was found."""
    reader, parts = _Reader(task), 0
    for number, batch in enumerate(batches(reader.records(), lambda r: len(r.payload), PART_BYTES, PART_RECORDS)):
        parts += 1
        path = part_path(task.folder, task.unit, number)
        if (task.turns == 1 or _claimed(path, number, task)) and not is_whole(path):
            extract_part((path, batch))
        task.place.write_text(str(reader.place()))
    return Taken(task.unit, task.turn, parts, reader.aside, reader.sound)


class Watch:
    """How much of the input has been read. Each task says so in a file, so it is seen alike in this process and on a cluster."""

    def __init__(self, tasks: Sequence[Reading], ahead: int) -> None:
        self.total = sum(task.size for task in tasks if task.turn == 0)
        self.done = 0  # tasks; the next `ahead` may be under way
        self._tasks, self._ahead = tasks, ahead
        self._read, self._counted = Counter[int](), 0  # unit -> bytes; the tasks that were done by then

    def bytes(self) -> int:
        """Returns how many bytes have been read by now."""
        done = self.done
        for task in self._tasks[self._counted : done]:
            self._read[task.unit] = task.size
        self._counted = done
        for task in self._tasks[done : done + self._ahead]:
            with contextlib.suppress(OSError, ValueError):  # it has said nothing yet, or is about to
                self._read[task.unit] = max(self._read[task.unit], min(int(task.place.read_text()), task.size))
        return self._read.total()
