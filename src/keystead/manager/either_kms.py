"""Two KMSs of one name, such as two files or two accounts: what a trail is sealed and signed under may be in either."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from keystead.errors import KMSError
from keystead.model import EncryptedData, Signature, SignatureAlgorithm
from keystead.ports import ComputesMacs, KmsProvider

T = TypeVar("T")
P = TypeVar("P")


class EitherKms:
    """What reads is done by whichever of the two can; what writes, by the first."""

    def __init__(self, first: KmsProvider, second: KmsProvider) -> None:
        self._both: Final = (first, second)
        self._of_macs: Final = [each for each in self._both if isinstance(each, ComputesMacs)]

    @property
    def provider_name(self) -> str:
        """The kind of the first."""
        return self._both[0].provider_name

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt by the first."""
        return await self._both[0].encrypt(plaintext, key_id, context=context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext.

        Raises:
            KMSError: neither can; what the first says.
        """
        return await _either(self._both, lambda each: each.decrypt(encrypted, context=context))

    async def mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return a MAC by the first that makes some."""
        return await self._of_macs[0].mac(message, key_id, algorithm=algorithm)

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        """Return if either says that the MAC is good, else raise what the first says."""
        await _either(self._of_macs, lambda each: each.verify_mac(message, mac))


async def _either(providers: Sequence[P], call: Callable[[P], Awaitable[T]]) -> T:
    try:
        return await call(providers[0])
    except KMSError:
        for other in providers[1:]:
            try:
                return await call(other)
            except KMSError:
                continue
        raise
