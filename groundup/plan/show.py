"""`groundup model show`: a model's layers, parameters, operations and memory, and its block drawn."""

from pathlib import Path

from groundup.base.config import load_toml
from groundup.base.errors import ConfigError
from groundup.base.files import read_json, write_text
from groundup.base.log import command, quantity, say
from groundup.base.runs import resolve_checkpoint
from groundup.model.config import ModelConfig
from groundup.model.presets import PRESETS
from groundup.model.show import draw, layers
from groundup.plan.config import ShowConfig
from groundup.plan.memory import training_bytes

__all__ = ["find", "main"]


def find(what: str) -> ModelConfig:
    """Returns the model that is meant: a preset, a TOML file with a [model], a config.json, or a trained run's.

    Raises: ConfigError or CheckpointError saying what was looked for.
    """
    if what in PRESETS:
        return ModelConfig.from_dict({"preset": what})
    path = Path(what)
    if path.suffix == ".toml":
        return _of_toml(path)
    if path.is_dir() and not (path / "config.json").is_file():
        path = resolve_checkpoint(path)
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{what}: neither a file nor a run; the presets are {', '.join(PRESETS)}")
    return _of_json(file)


def _of_toml(file: Path) -> ModelConfig:
    """Returns the [model] of a verb's config, or the [pretrain.model] of a recipe."""
    tables = load_toml(file)
    model = tables.get("model") or tables.get("pretrain", {}).get("model")
    if not isinstance(model, dict):
        raise ConfigError(f"{file}: there is no section [model] in it")
    return ModelConfig.from_dict(model, str(file))


def _of_json(file: Path) -> ModelConfig:
    """Returns the model of a config.json, ours or Hugging Face's."""
    values = read_json(file)
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: not a model's config, but a {type(values).__name__}")
    if values.get("format") != "groundup":
        from groundup.model.huggingface import config_from_huggingface

        return config_from_huggingface(values)
    values.pop("format")
    return ModelConfig.from_dict(values, str(file))


def table(model: ModelConfig) -> list[str]:
    """Returns the layers as lines of text, with their sums."""
    rows, heads = layers(model), ("layer", "shape", "number", "parameters", "share", "FLOPs/token", "share")
    params, flops = model.params(), model.flops_per_token()
    cells = [
        (row.name, " x ".join(map(str, row.shape)), str(row.number), f"{row.params:,}", f"{row.params / params:.1%}",
         quantity(row.flops), f"{row.flops / flops:.1%}")
        for row in rows
    ]  # fmt: skip
    cells.append(("sum", "", "", f"{params:,}", "", quantity(flops), ""))
    wide = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    align = "<<>>>>>"
    return [
        "  ".join(f"{cell:{side}{w}}" for cell, side, w in zip(line, align, wide)).rstrip() for line in [heads, *cells]
    ]


def memory(model: ModelConfig, config: ShowConfig) -> list[str]:
    """Returns what the model needs: to be kept, to generate, to be trained."""
    cache = 4 * model.kv_heads * model.head_size  # bytes of one token's keys and values in a layer, in bf16
    slots = sum(model.cache_slots(layer, model.context) for layer in range(model.n_layers))
    parts = training_bytes(model, config.rows, config.precision, config.optimizer, config.device)
    said = ", ".join(f"{name} {quantity(size)}B" for name, size in parts.items())
    return [
        f"weights      {quantity(4 * model.params())}B in fp32, {quantity(2 * model.params())}B in bf16",
        f"KV cache     {quantity(cache * model.n_layers)}B a token in bf16, {quantity(cache * slots)}B for the whole context",
        f"training     {quantity(sum(parts.values()))}B for {config.rows} rows of {model.context} tokens in "
        f"{config.precision} on {config.device} with {config.optimizer}: {said}",
    ]  # fmt: skip


def main(config: ShowConfig) -> None:
    """Prints the model and, if asked, draws it."""
    model = find(config.what)
    active = f" ({model.params(active=True):,} for a token)" if model.experts > 1 else ""
    print(f"{config.what}: {model.family}, {model.params():,} parameters{active}, context of {model.context} tokens\n")
    print("\n".join([*table(model), "", *memory(model, config)]))
    if config.svg is not None:
        write_text(config.svg, draw(model))
        say(f"{config.svg}: the block, drawn")
    else:
        say(f"next: {command('model show', config.what, '--svg', 'block.svg')}")
