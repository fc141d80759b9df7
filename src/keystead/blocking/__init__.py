"""The manager for code that is not async: the members of ``keystead.KeyManager``, under the same names.

A facade, not a second manager: every call that may do I/O runs on the process's one background loop, and the calling
thread waits for it. ``local_encrypt`` and ``local_decrypt`` never touch that loop, except that ``local_decrypt``
fetches a data key which is not loaded::

    with KeyManager.open("local:", store="sqlite:///keys.db") as km:
        ciphertext = km.local_encrypt(b"ada@example.org")

Usable from any number of threads. A manager made before a fork works in the children; each starts a loop of its own at
its first call. A manager left open is closed when the interpreter exits.
"""

from __future__ import annotations

from keystead.blocking.audit import Audit
from keystead.blocking.crypto_service import CryptoService
from keystead.blocking.data_keys import DataKeys
from keystead.blocking.handle import KeyringHandle
from keystead.blocking.manager import KeyManager
from keystead.blocking.reencrypt import plan, reencrypt

__all__ = ["Audit", "CryptoService", "DataKeys", "KeyManager", "KeyringHandle", "plan", "reencrypt"]
