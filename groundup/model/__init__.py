"""The model: one Transformer that its config turns into Qwen3, Llama, GPT-2 or the block of 2017. Single-device."""
