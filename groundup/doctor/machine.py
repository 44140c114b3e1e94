"""`groundup machine`: what this machine can do for training, measured in half a minute."""

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.base.errors import ConfigError
from groundup.base.files import write_json
from groundup.base.log import command, progress, quantity, say
from groundup.doctor.config import MachineConfig
from groundup.model.config import ModelConfig
from groundup.parallel.mesh import choose_device, set_threads
from groundup.plan.cost import best_time, faster_precision, hardware, seconds_per_step, shape
from groundup.plan.memory import training_bytes

__all__ = ["main", "measure"]

SIZES = (256, 1024, 4096)  # sides of the square matrices that are multiplied
LONG = 2.0  # seconds that one product may take at most; a larger one is then left out
COPY_BYTES = 2**27


def _memory_bytes() -> tuple[int, int]:
    """Returns the machine's memory and what of it is free, in bytes; zeros where the system doesn't say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith("kB")}
        return sizes["MemTotal"], sizes["MemAvailable"]
    except OSError:
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return (pages * os.sysconf("SC_PAGE_SIZE") if pages else 0), 0


def _products(device: torch.device) -> dict[str, dict[str, float]]:
    """Returns {"fp32": {"256": FLOP/s, ...}, "bf16": ...} of square matrix products; sizes that take too long are left out."""
    found: dict[str, dict[str, float]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rates: dict[str, float] = {}
        for n in SIZES:
            if rates and 2 * n**3 / rates[max(rates, key=int)] > LONG:
                break
            a = torch.randn(n, n, device=device).to(dtype)
            rates[str(n)] = 2 * n**3 / best_time(lambda a=a: a @ a, device, 0.2)  # type: ignore[misc]
        found[name] = rates
    return found


def _disk(folder: Path, megabytes: int) -> dict[str, float]:
    """Returns {"write", "read"} in bytes a second, of one file that is removed again. What is read may come from the cache.

    Raises: OSError, turned into one line by the caller of verbs.
    """
    path = folder / f".groundup-{os.getpid()}.tmp"
    block = np.random.default_rng(0).integers(0, 256, 2**20, dtype=np.uint8).tobytes()
    try:
        start = time.perf_counter()
        with open(path, "wb") as stream:
            for _ in range(megabytes):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that it is read from the disk
        wrote = time.perf_counter() - start
        start = time.perf_counter()
        with open(path, "rb") as stream:
            while stream.read(2**20):
                pass
        return {"write": megabytes * 2**20 / wrote, "read": megabytes * 2**20 / (time.perf_counter() - start)}
    finally:
        path.unlink(missing_ok=True)


def measure(config: MachineConfig) -> dict[str, Any]:
    """Returns the figures: cores, memory, matrix products, memory's speed, the precision to take, a training step, the disk."""
    device, threads = choose_device(config.device), set_threads(config.threads)
    model = shape(config.d_model, ModelConfig(vocab_size=8192, context=config.context))
    rows = max(1, 8192 // config.context)
    found: dict[str, Any] = {
        "platform": platform.platform(), "torch": torch.__version__, "device": device.type, "cores": os.cpu_count(), "threads": threads,
    }  # fmt: skip
    found["memory_bytes"], found["free_bytes"] = _memory_bytes()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "gpus": torch.cuda.device_count(),
            "gpu_memory_bytes": properties.total_memory,
        }
    with progress("measuring", 5, "things") as bar:
        found["products"] = _products(device)
        bar.advance()
        block = torch.zeros(COPY_BYTES // 4, device=device)
        found["copy_bytes_per_s"] = 2 * COPY_BYTES / best_time(lambda: block.clone(), device, 0.3)
        bar.advance()
        precision = found["precision"] = faster_precision(device, rows * config.context, config.d_model)
        bar.advance()
        step_s = seconds_per_step(model, rows, device, precision, 3.0)
        peak = max(found["products"][precision].values())
        tokens_per_s = rows * config.context / step_s
        found["step"] = {
            "params": model.params(), "d_model": model.d_model, "n_layers": model.n_layers, "tokens": rows * config.context,
            "seconds": step_s, "tokens_per_s": tokens_per_s, "mfu": tokens_per_s * model.flops_per_token() / peak,
        }  # fmt: skip
        bar.advance()
        found["disk"] = _disk(config.folder, config.disk_mb)
        bar.advance()
    found["largest_params"] = _largest(found, config.context)
    return found


def _largest(found: dict[str, Any], context: int) -> int:
    """Returns the parameters of the widest model (in the planner's proportions) whose training fits into the free memory."""
    free = found.get("gpu_memory_bytes") or found["free_bytes"] or found["memory_bytes"]
    best, width = 0, 64
    while width <= 16384:
        model = shape(width, ModelConfig(vocab_size=32768, context=context))
        if sum(training_bytes(model, 1, found["precision"], "adamw", found["device"]).values()) > 0.9 * free:
            break
        best, width = model.params(), width + 64
    return best


def _lines(found: dict[str, Any]) -> list[str]:
    """Returns the figures as lines for people."""
    step, disk = found["step"], found["disk"]
    peaks = {name: max(rates.values(), default=0.0) for name, rates in found["products"].items()}
    where = f"{found['gpus']} x {found['gpu']}" if "gpu" in found else f"{found['threads']} of {found['cores']} cores"
    memory = f"{quantity(found['memory_bytes'])}B of memory, {quantity(found['free_bytes'])}B free"
    if "gpu" in found:
        memory += f"; {quantity(found['gpu_memory_bytes'])}B on the GPU"
    lines = [f"{where}, {memory} ({found['platform']}, torch {found['torch']})"]
    for name, rates in found["products"].items():
        sizes = ", ".join(f"{quantity(rate)}FLOP/s at {n}" for n, rate in rates.items())
        lines.append(f"matrix products in {name}: {sizes}")
    lines.append(
        f"precision: {found['precision']} (bf16 is {peaks['bf16'] / peaks['fp32']:.2g} times as fast in large products)"
    )
    lines.append(f"memory is copied at {quantity(found['copy_bytes_per_s'])}B/s")
    lines.append(
        f"training {step['d_model']} x {step['n_layers']}, {quantity(step['params'])} parameters: "
        f"{quantity(step['tokens_per_s'])} tokens/s, "
        f"MFU {step['mfu']:.0%} of the fastest product in {found['precision']}"
    )
    lines.append(f"disk: writes {quantity(disk['write'])}B/s, reads {quantity(disk['read'])}B/s")
    lines.append(
        f"the largest model whose training fits into the memory: about {quantity(found['largest_params'])} parameters"
    )
    h100 = statistics.median(d["tflops"] for d in hardware() if d["name"] == "H100 SXM") * 1e12
    lines.append(f"an H100's products are {h100 / peaks[found['precision']]:.0f} times as fast, by its data sheet")
    return lines


def main(config: MachineConfig) -> dict[str, Any]:
    """Measures, says and returns the figures; with `out` writes them as JSON. Raises: ConfigError for a folder that can't be written."""
    if config.out.name and config.out.suffix != ".json":
        raise ConfigError(f"out: expected the path of a .json file, not {config.out}")
    found = measure(config)
    for line in _lines(found):
        say(line)
    if config.out.name:
        write_json(config.out, found)
        say(f"wrote {config.out}")
    chosen = ["--precision", found["precision"], "--device", found["device"]]
    say(f"next: {command('plan', '--minutes', 30, *chosen)}")
    return found
