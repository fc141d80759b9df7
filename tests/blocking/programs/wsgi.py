"""A WSGI application whose manager is made, and opened, before the server forks its workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from keystead.blocking import KeyManager

km = KeyManager.open(os.environ["PROGRAM_KMS"], store=os.environ["PROGRAM_STORE"], epoch_max_age_s=1)
km.initialize()


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Encrypt at /encrypt, decrypt what is posted, in a worker that says its process id."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if environ["PATH_INFO"] == "/encrypt":
        time.sleep(0.02)
        answer = km.local_encrypt(b"pluto")
    else:
        answer = km.local_decrypt(body)
    start_response("200 OK", [("X-Pid", str(os.getpid())), ("Content-Length", str(len(answer)))])
    return [answer]
