"""Planning: how large a model, how many tokens, how much time and memory; before anything is spent."""
