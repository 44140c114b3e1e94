"""The flags of `groundup serve`. Never imports torch."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from groundup.base.errors import ConfigError
from groundup.infer.config import Stage, reads

__all__ = ["ServeConfig"]


@dataclass(frozen=True)
class ServeConfig:
    """`groundup serve`: OpenAI's routes and a chat page."""

    project: Positional[Path] = Path("my-llm")  # the project folder (or a run or checkpoint in it)
    stage: Stage = "auto"  # whose model: of pretrain, sft, dpo or grpo; auto is the furthest that has finished
    name: str = "main"  # the run's name (with --stage)
    host: str = "127.0.0.1"  # the address to listen on; 0.0.0.0 lets other machines in, and there is no password
    port: int = 8000  # the port to listen on; 0 takes any that is free
    model_name: str = ""  # what clients call the model (empty: the project folder's name)
    max_waiting: int = 32  # requests that may wait for their turn; a further one is told to come back later
    device: str = "auto"  # cpu, cuda, mps; auto takes the GPU where there is one

    def validate(self) -> None:
        """Raises: ConfigError naming the flag that is out of range."""
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port: expected a number from 0 to 65535, not {self.port}")
        if self.max_waiting < 1:
            raise ConfigError(f"max_waiting: expected at least 1, not {self.max_waiting}")

    def describe(self) -> list[str]:
        """Returns the lines of `--dry-run`."""
        return [
            reads(self.project, self.stage, self.name),
            f"listen on http://{self.host}:{self.port}",
            "write nothing",
        ]
