"""An OpenAI-compatible caching and accounting gateway for /v1/videos."""

__version__ = "0.1.0"
