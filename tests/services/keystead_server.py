"""Keystead's own server in the place of a Vault, administered in the same words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from keystead.access.token_text import parse_token
from tests.services.openbao import OpenBao, Reply
from tests.transit.replay.wire import Answer, Line, Request
from tests.transit.targets.keystead import keystead_target
from tests.transit.targets.translation import Administration


class KeysteadServer(OpenBao):
    """A running node. What it does not have, namespaces and mounts, fails as it does for anybody who asks for them."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self._administration = Administration(url, token)

    def close(self) -> None:
        """Close what was made in front of the server, and its administrator's connection."""
        super().close()
        self._administration.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        namespace: str | None = None,
        wrap_ttl: str | None = None,
    ) -> Reply:
        """Return the answer to a request, which is done by the administrative API where there is another way to it."""
        headers = {"X-Vault-Token": self.token if token is None else token}
        headers |= {"X-Vault-Namespace": namespace} if namespace else {}
        headers |= {"X-Vault-Wrap-TTL": wrap_ttl} if wrap_ttl is not None else {}
        given = None if body is None else dict(body)
        answer = self._administration.translated(Request(method, f"/v1/{path}", headers=headers, body=given))
        if isinstance(answer, Request):
            with contextlib.closing(Line(self.url)) as line:
                answer = line.send(answer)
        assert isinstance(answer, Answer)
        assert answer.status is not None
        return Reply(answer.status, answer.body or {})

    def enable(self, kind: str, *, namespace: str | None = None) -> str:
        """Return where an auth method is: at its own name."""
        assert namespace is None
        return kind

    def revoke(self, token: str) -> None:
        """Make a token worthless."""
        parts = parse_token(token)
        assert parts is not None
        self._administration.revoke(parts.id)

    def is_valid(self, token: str) -> bool:
        """Whether a token can still be looked up."""
        return self.ask("GET", "auth/token/lookup-self", token=token).status == 200


@pytest.fixture(scope="session")
def keystead_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeysteadServer]:
    """A node over a store of its own, which the tests of a worker share."""
    with keystead_target(tmp_path_factory.mktemp("keystead-server")) as target:
        server = KeysteadServer(target.url, target.root_token)
        yield server
        server.close()
