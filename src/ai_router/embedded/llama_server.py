"""llama.cpp's HTTP server in this process: ``python -m ai_router.embedded.llama_server WEIGHTS NAME PORT READY_FD``.

Facts about xllamacpp 2026.10: ``Server(params)`` returns when the model is loaded and the port listens; ``model_alias``
is a set; a key in ``api_keys`` is asked for on everything but /health.
"""

from __future__ import annotations

import os
import sys

from ai_router.embedded.start import KEY_VARIABLE, MODEL_NAME

_SLOTS = 4
_CONTEXT_TOKENS = 8_192
"""All that the packaged model has."""
_OWN_CONTEXT_TOKENS = 16_384
"""Of a file of one's own. Many models could take eight times that, but the memory for it is taken at the start."""


def main() -> None:
    """Serve until stdin ends."""
    import xllamacpp  # noqa: PLC0415 - an optional extra, needed in this process only

    weights, name, port, ready_fd = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.api_keys = [os.environ[KEY_VARIABLE]]
    params.n_parallel = _SLOTS
    # One cache for all slots: each conversation may use the model's whole context.
    params.kv_unified = True
    params.n_ctx = _CONTEXT_TOKENS if name == MODEL_NAME else _OWN_CONTEXT_TOKENS
    params.warmup = True
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    sys.stdin.buffer.read()
    del server
    # The native threads take long to end, and the parent process is gone.
    os._exit(0)


if __name__ == "__main__":
    main()
