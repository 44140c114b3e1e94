"""The same build on Ray: on a cluster of its own, on one of several nodes, and with a worker that is killed. The bytes are the same."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.base.errors import ConfigError
from groundup.data.build import build
from groundup.data.config import BuildConfig

OUTPUTS = ("documents.parquet", "heldout.parquet", "dropped.parquet", "features.parquet", "stats.json")
WORDS = "the of and with a house river people said day went have that winter engine letter".split()  # noqa: SIM905 a list of words reads best as words

NODES = """
import sys
from dataclasses import replace
from pathlib import Path
from ray.cluster_utils import Cluster
from groundup.data.build import build
from groundup.data.config import BuildConfig
from groundup.data.engine import workers

def once(mark):
    import os, signal
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()

def where(number):
    import ray, time
    time.sleep(0.5)
    return ray.get_runtime_context().get_node_id()

store = {"object_store_memory": 100 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **store})
for _ in range(2):
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
folder = Path(sys.argv[1])
with workers(0, print, (), "ray", cluster.address) as run:
    assert run.processes == 3
    assert len(set(run(where, range(6)))) == 3, "the tasks go to all three nodes"
    assert len(list(run(once, [folder / "mark"]))) == 1, "a task whose worker is killed is done again"
    assert run.peak_bytes > 10 << 20
build(replace(BuildConfig(project=folder), engine="ray", address=cluster.address))
cluster.shutdown()
"""


def project(folder: Path) -> Path:
    dice = random.Random(4)
    (folder / "raw").mkdir(parents=True)
    for name in ("a", "b"):
        rows = [{"id": k, "text": " ".join(dice.choices(WORDS, k=dice.randrange(30, 90))) + "."} for k in range(900)]
        rows += [{"id": f"again{k}", "text": row["text"]} for k, row in enumerate(rows[:50])]
        (folder / "raw" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "01-data" / "main" / name).read_bytes() for name in OUTPUTS}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_build_on_ray_gives_the_same_bytes(tmp_path: Path) -> None:
    build(BuildConfig(project=project(tmp_path / "here"), processes=1))
    command = [
        sys.executable,
        "-m",
        "groundup",
        "data",
        "build",
        str(project(tmp_path / "own")),
        "--engine",
        "ray",
        "--processes",
        "3",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert outputs(tmp_path / "own") == outputs(tmp_path / "here")
    script = tmp_path / "nodes.py"
    script.write_text(NODES)
    subprocess.run(
        [sys.executable, script, project(tmp_path / "nodes")],
        check=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert outputs(tmp_path / "nodes") == outputs(tmp_path / "here")
    run = json.loads((tmp_path / "own" / "01-data" / "main" / "run.json").read_text())
    assert run["results"]["peak_bytes"] < 2 << 30


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'groundup\[ray\]'"):
        build(BuildConfig(project=project(tmp_path / "p"), engine="ray"))
    with pytest.raises(ConfigError, match="address: auto is for --engine ray"):
        BuildConfig(address="auto").validate()
