"""A language model in JAX learns a small text, byte by byte; begins from the weights that the NumPy lesson would begin from.

pip install 'groundup[jax]'
python examples/jax_llm.py             learns a nursery rhyme by heart
python examples/jax_llm.py FILE.txt    learns a small text of yours
"""

import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from groundup.model import plain_jax as lesson
from groundup.model import plain_numpy

RHYME = """Twinkle, twinkle, little star,
How I wonder what you are!
Up above the world so high,
Like a diamond in the sky.
"""


def main() -> None:
    """Trains, and lets it continue its text."""
    text = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else RHYME.encode() * 3
    config, started = lesson.Config(vocab_size=256, n_layers=2, d_model=64), time.perf_counter()
    numpys = plain_numpy.initialise(plain_numpy.Config(**vars(config)))
    weights = {name: jnp.asarray(weight) for name, weight in numpys.items()}
    weights, losses = lesson.train(weights, config, np.frombuffer(text, np.uint8), steps=200)
    print(f"{sum(w.size for w in weights.values()):,} weights in {time.perf_counter() - started:.0f} s")
    print(f"loss: {losses[0]:.2f} -> {losses[-1]:.2f} nats per byte")
    print("it continues:", bytes(lesson.generate(weights, config, list(text[:8]), 60)).decode(errors="replace"))


if __name__ == "__main__":
    main()
