"""The tests; what has to hold before any of them begins."""

import gc
import os
import sys
import threading

# A child of a fork leaves its parent's garbage alone: to end an object of gRPC's loop it would wait for a thread that
# only the parent has, for ever.
os.register_at_fork(after_in_child=gc.freeze)

if sys.version_info < (3, 12):
    from greenlet import getcurrent  # type: ignore[import-untyped]

    # Python 3.11 hangs for ever where a traced function runs as a thread's greenlet goes, and another thread ends
    # meanwhile: and coverage keeps greenlets in a weak dictionary, which calls one. So none of them goes. Two
    # references, since greenlet looks through the whole heap for who holds the only one.
    _KEPT: list[object] = []
    _begin = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def _bootstrap_inner(self: threading.Thread) -> None:
        _KEPT.extend([getcurrent()] * 2)
        _begin(self)

    threading.Thread._bootstrap_inner = _bootstrap_inner  # type: ignore[attr-defined]
