"""A program that ends without closing its manager, while a call of another thread is still running."""

from __future__ import annotations

import os
import sys
import threading

from keystead.blocking import KeyManager
from keystead.errors import SystemShutdownError


def endless(km: KeyManager) -> None:
    """Ask until the manager is gone."""
    try:
        while True:
            km.get_status()
    except SystemShutdownError:
        return


km = KeyManager.open(os.environ["PROGRAM_KMS"], store=os.environ["PROGRAM_STORE"])
km.initialize()
for _ in range(10):
    km.local_encrypt(b"ceres")
if "busy" in sys.argv:
    threading.Thread(target=endless, args=(km,), daemon=True).start()
print("done")
