"""The engine: order, bounds, cuts that depend on the items alone, and a worker that dies."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.base.errors import StorageError
from groundup.data.engine import batches, processes_for, workers
from groundup.data.pool import FORKS

_offset = [0]


def prepare(offset: int) -> None:
    _offset[0] = offset


def work(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * 10 + _offset[0]


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes: int) -> None:
    with workers(processes, prepare, (7,)) as run:
        assert list(run(work, range(20))) == [n * 10 + 7 for n in range(20)]


def test_tasks_are_drawn_a_few_at_a_time() -> None:
    drawn: list[int] = []

    def tasks():  # type: ignore[no-untyped-def]
        for n in range(30):
            drawn.append(n)
            yield n

    with workers(2, prepare, (0,)) as run:
        results = iter(run(work, tasks()))
        next(results)
        assert len(drawn) <= 5
        assert len(list(results)) == 29


def test_a_worker_that_is_killed_is_named() -> None:
    with pytest.raises(StorageError, match="--processes 1"), workers(2, prepare, (0,)) as run:
        list(run(die, range(10)))


def die_once(task: tuple[int, Path]) -> int:
    number, mark = task
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_what_was_under_way_when_a_worker_died_is_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with workers(2, prepare, (0,)) as run:
        assert list(run(die_once, ((n, tmp_path / "mark") for n in range(9)))) == list(range(9))
        assert run.peak_bytes > 10 << 20
    assert "a worker process died; what was under way is done again" in capsys.readouterr().out


def die_of_it(task: tuple[Path]) -> str:
    if task[0].name == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    task[0].touch()
    return task[0].name


def test_a_task_that_kills_every_worker_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    names = ["a", "b", "poison", *"cdefgh"]
    with (
        pytest.raises(StorageError, match=r"three times: die_of_it of .*poison .* the rest is done"),
        workers(2, prepare, (0,)) as run,
    ):
        list(run(die_of_it, ((tmp_path / name,) for name in names)))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*names} - {"poison"})


def environment(name: str) -> tuple[str, bool]:
    return os.environ.get(name, ""), "groundup.data.passes" in sys.modules


def test_workers_have_what_they_need_and_what_was_set_since(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("before", "since"):
        monkeypatch.setenv("GROUNDUP_TEST", value)
        with workers(2, prepare, (0,)) as run:
            found = set(run(environment, ["GROUNDUP_TEST"] * 4))
        assert found == {(value, FORKS)}


def fill(number: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "part")


def test_what_a_task_raises_arrives() -> None:
    with pytest.raises(OSError, match="No space") as caught, workers(2, prepare, (0,)) as run:
        list(run(fill, range(3)))
    assert caught.value.errno == errno.ENOSPC


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text("import os, time\nfrom groundup.data.engine import workers\n"
                      "def pid(n):\n    time.sleep(0.2)\n    return os.getpid()\n"
                      "if __name__ == '__main__':\n    with workers(2, len, ((),)) as run:\n"
                      "        print(*run(pid, range(4)), flush=True)\n        time.sleep(99)\n")  # fmt: skip
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = {int(word) for word in parent.stdout.readline().split()}
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("start", ["os._exit(3)", "raise ValueError('no start')"])
def test_a_worker_that_dies_at_its_start_is_named_at_once(start: str) -> None:
    with pytest.raises(StorageError, match="a worker process died"), workers(2, exec, (f"import os; {start}",)) as run:
        list(run(len, [bytes(1 << 20)] * 8))


def test_a_script_without_a_main_guard_fails_and_does_not_hang(tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text("from groundup.data.engine import workers\n"
                      "with workers(2, len, (b'x' * 1_000_000,)) as run:\n    list(run(len, [b'x'] * 9))\n")  # fmt: skip
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'must do so under `if __name__ == "__main__":`' in done.stderr


def test_batches_are_cut_by_size_and_count() -> None:
    assert list(batches([1, 2, 3, 4, 5], lambda _: 1, 100, 2)) == [[1, 2], [3, 4], [5]]
    assert list(batches([1, 9, 9, 1], lambda n: n, 10, 100)) == [[1, 9], [9, 1]]
    assert list(batches([], lambda _: 1, 1, 1)) == []


def test_small_inputs_need_no_processes() -> None:
    assert processes_for(0, 1000) == 1
    assert processes_for(3, 1000) == 3
    assert processes_for(0, 1 << 30) >= 1
