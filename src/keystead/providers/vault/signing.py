"""The Vault provider's MACs and signatures; see ``vault``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from keystead.errors import InvalidInputError, InvalidSignatureError, KMSError
from keystead.model import KeyPurpose, KeyReference, PublicKey, Signature, SignatureAlgorithm
from keystead.providers.vault.batches import all_or_partial, each_run, split
from keystead.providers.vault.client import VaultClient
from keystead.providers.vault.keeper import Keeper
from keystead.providers.vault.keys import MACS, Key, Keys
from keystead.providers.vault.signer import (
    INVALID,
    Item,
    Made,
    Signer,
    mac_algorithm,
    mac_items,
    sign_items,
    signing_algorithms,
    version_number,
)
from keystead.providers.workers import Workers

T = TypeVar("T")


class VaultSigning:
    """MACs are made and checked by the server; signatures are checked here, by the public key."""

    _client: VaultClient
    _keeper: Keeper
    _keys: Keys
    _signer: Signer
    _workers: Workers

    @property
    def provider_name(self) -> str:
        """The provider's kind: ``vault``."""
        return "vault"

    async def mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the MAC of ``message``: HMAC-SHA-256, or by SHA-384 or SHA-512. Keys of every type make MACs.

        Raises:
            InvalidInputError: another ``algorithm``, no key id, or more than 32 MiB in base64.
            KeyNotFoundError, KeyStateError, ProviderAuthError, ProviderConnectionError: as the server answers.
        """
        chosen, key = mac_algorithm(algorithm), self._keys.get(key_id)
        made = await self._run(lambda: self._signer.mac(key, message, chosen))
        return self._signature(made, key, key_id, chosen, KeyPurpose.MAC)

    async def mac_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        """Return the MAC of each message: some 500 of them are one request.

        Raises:
            PartialBatchError: some could not be made; otherwise as ``mac``.
        """
        chosen, key = mac_algorithm(algorithm), self._keys.get(key_id)
        name = self._naming(key, key_id, chosen, KeyPurpose.MAC)

        def prepare() -> tuple[list[Item], list[tuple[int, int]]]:
            items = mac_items(messages)
            return items, split(items, self._signer.mac_fields(key, chosen))

        async def ask(start: int, end: int) -> list[Signature | KMSError]:
            return await self._run(lambda: name(self._signer.macs(key, items[start:end], chosen)))

        items, runs = await self._run(prepare)
        return all_or_partial(await each_run(runs, ask), "MACs")

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        """Return if ``mac`` is of ``message`` under the key and version it names.

        Raises:
            InvalidSignatureError: it is not.
            KeyNotFoundError, KeyStateError: the key or its version is gone, or not allowed any more.
            ProviderAuthError, ProviderConnectionError: it could not be checked.
        """
        if mac.algorithm not in MACS:
            raise InvalidSignatureError(INVALID)
        key = self._keys.get(mac.key_reference.key_id)
        version = version_number(mac.key_reference.key_version)
        await self._run(lambda: self._signer.verify_mac(key, message, mac.value, version, mac.algorithm))

    async def sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        """Return the signature of ``message``; for Ed25519 it travels to the server, for others only its hash does.

        Raises:
            InvalidInputError: the key does not sign with ``algorithm``, or at all, or the message is too long for
                Ed25519 (32 MiB in base64).
            KeyNotFoundError, KeyStateError, ProviderAuthError, ProviderConnectionError: as the server answers.
        """
        _refuse_mac(algorithm)
        key = self._keys.get(key_id)
        made, chosen = await self._run(lambda: self._signer.sign(key, message, algorithm))
        return self._signature(made, key, key_id, chosen, KeyPurpose.SIGN_VERIFY)

    async def sign_batch(
        self, messages: Sequence[bytes], key_id: str, *, algorithm: SignatureAlgorithm | None = None
    ) -> list[Signature]:
        """Return the signature of each message: some 500 of them are one request.

        Raises:
            PartialBatchError: some could not be made; otherwise as ``sign``.
        """
        _refuse_mac(algorithm)
        key = self._keys.get(key_id)

        def prepare() -> tuple[SignatureAlgorithm, list[Item], list[tuple[int, int]]]:
            chosen = self._signer.algorithm_of(key, algorithm)
            items = sign_items(messages, chosen)
            return chosen, items, split(items, self._signer.sign_fields(key, chosen))

        async def ask(start: int, end: int) -> list[Signature | KMSError]:
            return await self._run(lambda: name(self._signer.signatures(key, items[start:end], chosen)))

        chosen, items, runs = await self._run(prepare)
        name = self._naming(key, key_id, chosen, KeyPurpose.SIGN_VERIFY)
        return all_or_partial(await each_run(runs, ask), "signatures")

    async def public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        """Return the public key of a version, of the newest where ``version`` is None.

        Raises:
            KeyNotFoundError: no such key or version, or one below the key's min_decryption_version.
            InvalidInputError: the key does not sign, or is derived.
        """
        key = self._keys.get(key_id)
        der, number, created, info = await self._run(lambda: self._signer.public_key(key, version))
        alias = key_id if key_id != key.key_id else None
        reference = KeyReference("vault", key.key_id, alias, KeyPurpose.SIGN_VERIFY, created, str(number))
        return PublicKey(der, reference, signing_algorithms(key, info))

    async def _run(self, call: Callable[[], T]) -> T:
        """Make a blocking call in a thread, and look after the token from this loop afterwards."""
        result = await self._workers.run(call)
        self._keeper.see(self._client.login.due_in_s)
        return result

    def _naming(
        self, key: Key, key_id: str, algorithm: SignatureAlgorithm, purpose: KeyPurpose
    ) -> Callable[[Sequence[Made | KMSError]], list[Signature | KMSError]]:
        """Return what makes signatures of what a server has made, for a batch."""

        def name(made: Sequence[Made | KMSError]) -> list[Signature | KMSError]:
            return [
                one if isinstance(one, KMSError) else self._signature(one, key, key_id, algorithm, purpose)
                for one in made
            ]

        return name

    def _signature(
        self, made: Made, key: Key, key_id: str, algorithm: SignatureAlgorithm, purpose: KeyPurpose
    ) -> Signature:
        alias = key_id if key_id != key.key_id else None
        reference = KeyReference("vault", key.key_id, alias, purpose, None, str(made.version))
        return Signature(made.value, reference, algorithm)


def _refuse_mac(algorithm: SignatureAlgorithm | None) -> None:
    if algorithm is not None and algorithm.is_mac:
        raise InvalidInputError(f"{algorithm} makes MACs: use mac()")
