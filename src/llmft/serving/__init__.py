"""HTTP API in OpenAI's shape, and a chat page, over a model that is asked a token at a time."""
