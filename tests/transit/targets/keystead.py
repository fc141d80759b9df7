"""``keystead serve`` on a store of its own, with what its administrators do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keystead.manager.installation import install
from tests.cli.conftest import run_process
from tests.cli.serving import serving
from tests.transit.replay.wire import Answer, Request
from tests.transit.targets.scopes import scopes_of
from tests.transit.targets.target import AppRole, Grant
from tests.transit.targets.translation import ADMINISTRATOR, Administration


class KeysteadTarget:
    """A service in which nobody has made a key yet."""

    name = "Keystead"

    def __init__(self, url: str, root_token: str) -> None:
        self.url = url
        self.root_token = root_token
        self._administration = Administration(url, root_token)

    def translated(self, request: Request) -> Request | Answer:
        """Do by Keystead's administrative API what OpenBao's does."""
        return self._administration.translated(request)

    def mount(self) -> None:
        """Do nothing: Transit is there."""

    def new_token(self, grants: Sequence[Grant]) -> str:
        """Make a token with the scopes of the grants."""
        return self._administration.new_token(scopes_of(grants))

    def new_app_role(self, name: str, grants: Sequence[Grant], **options: Any) -> AppRole:
        """Make a role with the scopes of the grants."""
        return self._administration.new_app_role(name, scopes_of(grants), options)

    def new_jwt_role(
        self, name: str, grants: Sequence[Grant], *, issuer: str, keys: Sequence[str], bound: Mapping[str, Any]
    ) -> None:
        """Make a role with the scopes of the grants."""
        config = {"bound_issuer": issuer, "jwt_validation_pubkeys": list(keys)}
        self._administration.new_jwt_role(name, scopes_of(grants), bound, config)

    def close(self) -> None:
        """Close its connection."""
        self._administration.close()


@contextmanager
def keystead_target(folder: Path) -> Iterator[KeysteadTarget]:
    """Start a service over a new store and end it."""
    with ThreadPoolExecutor(1) as pool:  # a test's own loop may be running in this thread
        pool.submit(install, folder).result()
    wanted = [part for scope in ADMINISTRATOR for part in ("--scope", scope)]
    made = run_process(folder, "token", "create", "administrator", *wanted)
    assert made.returncode == 0, made.stderr.decode()
    with serving(folder) as url:
        target = KeysteadTarget(url, made.stdout.decode().strip())
        try:
            yield target
        finally:
            target.close()
