"""Training speed on a GPU: GPT-2's shapes of 124M and 350M, T = 1024, bf16, groundup beside nanoGPT and litgpt.

    python benchmarks/gpu/pretrain.py --nanogpt DIR --litgpt VENV/bin/python     about 10 minutes
    python benchmarks/gpu/pretrain.py --shapes gpt2-124m                         ours alone, one shape

All are compiled and stand in the GPU's memory at once (80 GB suffice), and take turns of some steps. Ours is `groundup pretrain`
itself. The text is random: it makes no difference to the time. MFU is the share of the GPU's published rate of dense bf16 matrix
products (--peak-tflops), attention counted in full.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import pretrain
from machine import claim, save

WANTED = {"gpt2-124m": 0.45, "gpt2-350m": 0.50}  # of MFU


def main() -> None:
    """Measures each shape, prints the claims, writes the result."""
    parser = pretrain.options(__doc__ or "")
    parser.add_argument("--shapes", nargs="+", choices=WANTED, default=list(WANTED))
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bf16, as published (H100, H200: 989)")
    parser.set_defaults(device="cuda", steps=20)
    asked = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device is here; on a CPU: benchmarks/pretrain.py")
    names = ["groundup", *(["nanoGPT patched"] if asked.nanogpt else []), *(["litgpt"] if asked.litgpt else [])]
    found: dict[str, Any] = {}
    claims = []
    for shape in asked.shapes:
        asked.shape = shape
        rates, matmul = pretrain.race(asked, names)
        per_token = pretrain.flops_per_token(shape)
        mfu = {name: statistics.median(turns) * per_token / asked.peak_tflops / 1e12 for name, turns in rates.items()}
        print(f"{shape}: {mfu['groundup']:.1%} MFU; matrix products reach {matmul / 1e12:,.0f} TFLOP/s")
        claims.append(claim(f"MFU, {shape}", mfu["groundup"], {"wanted": WANTED[shape]}, "", asked.rounds))
        if len(rates) > 1:
            claims += pretrain.claims_of(shape, rates)
        found[shape] = {"tokens_per_s": rates, "mfu": mfu, "matmul_flops": matmul}
    gpu = torch.cuda.get_device_name()
    print(save("gpu-pretrain", {"gpu": gpu, "torch": torch.__version__, "shapes": found, "claims": claims}))


if __name__ == "__main__":
    main()
