"""The collector of reference cycles, set for a process that serves.

What the start has made, a hundred thousand objects, stays until the end. A full collection looks at all of it and holds
the interpreter meanwhile: 60 ms were measured, in which no request goes on. So it is put where the collector does not
look (``gc.freeze``).
"""

from __future__ import annotations

import gc

from ai_router.http.timers import TimerThread

_LOADED_S = 10.0
"""By then what loads in the background is there, as a rule."""
_YOUNG = 10_000
"""After how many new objects the collector looks at the youngest. Requests make few cycles: counting references frees
what they leave."""


def settle(timers: TimerThread) -> None:
    """Collect once, now that nobody waits; leave alone what is there, and, in a while, what has been loaded by then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    # Without a collection before, which would be the very pause; what was garbage then is kept, once.
    timers.after(_LOADED_S, gc.freeze)
