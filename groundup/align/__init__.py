"""From a model of text to one that answers: supervised fine-tuning, DPO, GRPO."""
