"""The tests; what has to hold before any of them begins."""

import sys
import threading

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
