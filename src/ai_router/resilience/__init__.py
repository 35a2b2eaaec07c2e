"""Retry, breaker, queue: what to do about a backend that is slow, busy or broken. Clocks are injected; no I/O here."""
