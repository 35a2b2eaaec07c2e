"""ai-router: a self-hosted, OpenAI-compatible routing proxy."""

__version__ = "0.1.0"
