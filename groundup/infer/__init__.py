"""From a model to text: picking tokens, generating in batches, the engine behind chat and the server."""
