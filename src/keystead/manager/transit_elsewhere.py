"""How another Transit engine is reached, of a Vault or OpenBao that runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from keystead.manager.transit_moves import MoveWish
from keystead.providers.vault.config import VaultConfig
from keystead.providers.vault.remote import RemoteTransit
from keystead.runtime.off_loop import in_thread


@dataclass(frozen=True, slots=True)
class OtherEngine:
    """Its address and a token.

    Attributes:
        mount: where Transit is mounted there.
        ca_cert: a file of certificates in PEM, instead of the system's.
    """

    url: str
    token: str = field(repr=False)
    mount: str = "transit"
    namespace: str | None = None
    ca_cert: str | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[RemoteTransit]:
        """Give the engine; nothing is asked before it is used.

        Raises:
            ConfigurationError: an address or a mount that cannot be.
        """
        config = VaultConfig(
            self.url,
            token=self.token,
            mount_path=self.mount,
            namespace=self.namespace,
            tls_ca_cert=self.ca_cert,
        )
        remote = RemoteTransit(config)
        try:
            yield remote
        finally:
            await in_thread(remote.close)

    @asynccontextmanager
    async def joined(self, wish: MoveWish, key: str) -> AsyncIterator[MoveWish]:
        """Give a wish to which a key of the engine is the other end.

        Raises:
            KeyNotFoundError: there is none of that name.
            InvalidInputError: it encrypts nothing.
            KMSError: the engine cannot be asked.
        """
        async with self.opened() as remote:
            other = await in_thread(remote.key, key)
            place = f"{self.url} {self.namespace or ''} {remote.mount}/{key}"
            yield replace(wish, other=other, place=place)
