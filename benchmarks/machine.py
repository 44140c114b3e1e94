"""The machine that a benchmark ran on, and the file that its result goes to."""

import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from groundup.base.files import write_json

__all__ = ["claim", "hardware", "save", "touch_memory"]

FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX512", "avx2": "AVX2"}  # the best first


def hardware() -> str:
    """Returns the processor's name, its widest instructions and the number of cores."""
    info = Path("/proc/cpuinfo")
    facts = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line) if info.exists() else {}
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    widest = next((name for flag, name in FLAGS.items() if flag in flags), "")
    return f"{facts.get('model name', platform.processor() or platform.machine())} {widest} x{os.cpu_count()}".replace(
        "  ", " "
    )


def touch_memory(gigabytes: int = 6) -> None:
    """Lets a process touch so much free memory and end. The host of a virtual machine takes back what nobody used for a while, and whoever
    touches it first waits for it (3 ms a MB were measured): so nobody who is compared does.
    """
    subprocess.run([sys.executable, "-c", f"[bytearray(b'1') * (1 << 27) for _ in range({8 * gigabytes})]"], check=True)


def save(name: str, content: dict[str, Any]) -> Path:
    """Writes benchmarks/results/NAME_HARDWARE_DATE.json and returns its path."""
    where = "".join(c if c.isalnum() else "-" for c in hardware()).strip("-").lower()
    file = Path(__file__).parent / "results" / f"{name}_{where}_{date.today().isoformat()}.json"
    write_json(
        file, {"hardware": hardware(), "python": platform.python_version(), "date": date.today().isoformat(), **content}
    )
    return file


def claim(text: str, ours: float, peers: dict[str, float], unit: str, n: int, *, higher: bool = True) -> dict[str, Any]:
    """Prints and returns one claim as a JSON object; `ratio` is ours against the best peer, above 1 is better."""
    best = (max if higher else min)(peers.values())
    found = {
        "claim": text,
        "ours": ours,
        "peers": peers,
        "ratio": ours / best if higher else best / ours,
        "unit": unit,
        "n": n,
    }
    print(json.dumps(found))
    return found
