"""Programs that draw nonces in processes of their own: a spawned one, and a WSGI application for gunicorn."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from soak.nonces import draw, opened, written
from soak.places import SQLITE, Place

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def wsgi() -> WsgiApplication:
    """Return an application that draws its share; called in gunicorn's main process, before the workers are forked."""
    km = opened(Place(SQLITE, os.environ["SOAK_URL"], Path(os.environ["SOAK_FOLDER"])))
    for _ in range(100):
        km.local_encrypt(b"")
    share = int(os.environ["SOAK_SHARE"])

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        line = f"{os.getpid()} {written(draw(km, share))}"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [line.encode()]

    return application


def main() -> None:
    """Draw as many nonces as the arguments say and print what they were."""
    url, folder, share = sys.argv[1:]
    print(written(draw(opened(Place(SQLITE, url, Path(folder))), int(share))))


if __name__ == "__main__":
    main()
