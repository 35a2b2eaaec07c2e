"""What is recorded of requests: log lines, Prometheus metrics, the windows of GET /api/metrics, spans.

Here is also what keeps this off the request threads (batches, recorder) and what keeps secrets out of it (redaction).
Nothing in this package changes how a request is answered. What is kept on disk is in storage.
"""
