"""Protection against backends that are slow, busy or broken: limits, queue, circuit breaker, backoff, retry budget.

Pure logic: no I/O, and the clocks are injected.
"""
