"""Providers for tests, and what is looked at in their requests."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from keystead.ports import Clock
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.provider import VaultKMSProvider
from keystead.testing import FaultProxy
from tests.services.openbao import AppRole, OpenBao


class Making:
    """Makes providers of a server behind a proxy."""

    def __init__(self, bao: OpenBao, proxy: FaultProxy) -> None:
        self.bao = bao
        self.proxy = proxy
        self._made: list[VaultKMSProvider] = []

    def provider(
        self, *, clock: Clock | None = None, environ: Mapping[str, str] | None = None, **given: Any
    ) -> VaultKMSProvider:
        """Return a provider; with a token of the user policy where the configuration says nothing about logging in."""
        if not given.keys() & {"token", "token_file", "auth_method"} and not environ:
            given["token"] = self.bao.new_token(self.bao.user_policy, no_default_policy=True)
        config = VaultConfig(**{"vault_addr": self.proxy.url, "mount_path": self.bao.mount, **given})
        made = VaultKMSProvider(config, environ=environ or {}, clock=clock)
        self._made.append(made)
        return made

    def by_role(self, role: AppRole, **more: Any) -> VaultKMSProvider:
        """Return a provider that logs in by AppRole."""
        given = {"auth_method": "approle", "auth_mount": role.mount, "role_id": role.role_id, **more}
        if not given.keys() & {"secret_id", "secret_id_file", "wrapped_secret_id"}:
            given["secret_id"] = role.secret_id()
        return self.provider(**given)

    async def aclose(self) -> None:
        """Close them all."""
        for provider in self._made:
            await provider.aclose()

    def paths(self, part: str = "") -> list[str]:
        """Return the paths of the requests so far that hold ``part``."""
        return [path.removeprefix("/v1/") for _, path in self.proxy.requests if part in path]


def text(raw: bytes) -> str:
    """Return base64."""
    return base64.b64encode(raw).decode()
