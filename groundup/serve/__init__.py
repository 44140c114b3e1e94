"""The server: OpenAI's routes and a chat page over one engine."""
