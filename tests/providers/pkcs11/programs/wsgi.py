"""A WSGI application whose manager has used its token before the server forks its workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from keystead.blocking import KeyManager

km = KeyManager.open(os.environ["PROGRAM_KMS"], store=os.environ["PROGRAM_STORE"], epoch_max_age_s=1)
km.initialize()


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Encrypt by the token at /encrypt, decrypt by it what is posted, in a worker that says its process id."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    time.sleep(0.02)  # so that the other worker has its turn
    answer = km.encrypt(b"pluto").to_bytes() if environ["PATH_INFO"] == "/encrypt" else km.decrypt(body)
    start_response("200 OK", [("X-Pid", str(os.getpid())), ("Content-Length", str(len(answer)))])
    return [answer]
