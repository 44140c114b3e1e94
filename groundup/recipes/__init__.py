"""Settings as TOML, and the demo that strings the verbs together."""
