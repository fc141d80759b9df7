"""What the six key providers have in common, and the two whose keys are in the environment and in files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn, Self, SupportsIndex, TypedDict, Unpack

from keystead.config import is_production
from keystead.errors import ConfigurationError, InvalidSignatureError
from keystead.ledger.signers import opening as signers_open
from keystead.ledger.signers.settings import AuditHook, NamedSignature
from keystead.ledger.signers.signer import Signer, SignerSettings
from keystead.model import SecretBytes, SignatureAlgorithm
from keystead.ports import Clock

ALGORITHMS: Final = {"HMAC-SHA256": SignatureAlgorithm.HMAC_SHA_256, "Ed25519": SignatureAlgorithm.ED25519}


class MaterialOptions(TypedDict, total=False):
    """What providers over the environment and files take besides, by keyword.

    Attributes:
        key_id: the only key id that is taken; by default every one is.
        algorithm: ``HMAC-SHA256`` (by default) or ``Ed25519``, the keys being seeds.
        cache_ttl: seconds after which a file is looked at again (1); a variable is at each call.
        grace_s: for how much longer keys are used while the disk fails; None is for ever.
        stream: what ``derive_key`` derives for.
        production: whether the rules for production hold; by default as ``KEYSTEAD_ENV`` says.
        audit: told of each use of a key.
    """

    key_id: str | None
    algorithm: str
    cache_ttl: float
    grace_s: float | None
    stream: str
    production: bool | None
    audit: AuditHook | None
    clock: Clock


class KeyFace:
    """What the six have in common. Construction does no I/O; ``aclose`` overwrites the keys."""

    _signer: Signer

    def __repr__(self) -> str:
        return f"{type(self).__name__}(keys hidden)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds keys and cannot be pickled or copied; make one in each process")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def get_key(self, key_id: str) -> SecretBytes:
        """Return the key that signs now: bytes whose repr hides them, and that nobody can wipe.

        Raises:
            KeyNotExportableError: it never leaves its KMS.
            KeyNotFoundError: ``key_id`` names no key of this provider.
            KMSError: it cannot be had now.
        """
        return await (await self._ready()).get_key(key_id=self._own(key_id))

    async def sign(self, key_id: str, data: bytes) -> bytes:
        """Return the signature of ``data`` under the newest version of the key; errors as ``get_key``."""
        return await (await self._ready()).sign(data, key_id=self._own(key_id))

    async def sign_named(self, key_id: str, data: bytes) -> NamedSignature:
        """Return the signature of ``data``, and the id of the version that made it, to be recorded beside it."""
        return await (await self._ready()).sign_named(data, key_id=self._own(key_id))

    async def sign_batch(self, key_id: str, items: Sequence[bytes]) -> list[bytes]:
        """Return a signature for each item, each of which passes ``verify`` alone; order kept."""
        return await (await self._ready()).sign_batch(items, key_id=self._own(key_id))

    async def verify(self, key_id: str, data: bytes, signature: bytes) -> bool:
        """Return whether ``signature`` is of ``data``; an id with a version means by that one.

        Raises:
            KMSError: it could not be verified: the key is not known or not there, or the KMS denies or is away.
        """
        signer = await self._ready()
        try:
            await signer.verify(data, signature, key_id=self._own(key_id))
        except InvalidSignatureError:
            return False
        return True

    async def current_key_id(self, key_id: str) -> str:
        """Return the id of the version that signs now. Ask after signing, or use ``sign_named``."""
        return await (await self._ready()).current_key_id(key_id=self._own(key_id))

    async def rotate_check(self) -> bool:
        """Look now whether the key was rotated, and take over the new version; True if it was since the last time."""
        return await (await self._ready()).rotate_check()

    async def derive_key(self, key_id: str, purpose: str, *, epoch: int = 0) -> SecretBytes:
        """Return a key of its own for a purpose and epoch of the stream; errors as ``get_key``."""
        return await (await self._ready()).derive_key(purpose, epoch=epoch, key_id=self._own(key_id))

    async def ready_signer(self) -> Signer:
        """Return the signer beneath, for who does something else with the same key."""
        return await self._ready()

    async def aclose(self) -> None:
        """Overwrite every key and close the connections; idempotent. Afterwards: ``SystemShutdownError``."""
        await self._signer.aclose()

    async def _ready(self) -> Signer:
        return self._signer

    def _own(self, key_id: str) -> str | None:
        """Return the id as the signer knows it; None, for the provider's own key, where it is empty."""
        return key_id or None


class EnvKeyProvider(KeyFace):
    """Keys in an environment variable, the newest first; it is read at each use."""

    def __init__(
        self, env_var: str, *, environ: Mapping[str, str] | None = None, **options: Unpack[MaterialOptions]
    ) -> None:
        self._signer = signers_open.variable_signer(
            env_var,
            _material(options),
            key_id=options.get("key_id"),
            environ=environ,
            production=_is_production(options),
        )


class FileKeyProvider(KeyFace):
    """Keys in a file, or in the files of a folder; changes are seen within ``cache_ttl`` seconds.

    ``allow_group_read`` accepts files that their group may read, as in a Kubernetes secret volume with ``fsGroup``.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, allow_group_read: bool = False, **options: Unpack[MaterialOptions]
    ) -> None:
        self._signer = signers_open.file_signer(
            path,
            _material(options),
            key_id=options.get("key_id"),
            allow_group_read=allow_group_read,
            production=_is_production(options),
        )


def _material(options: MaterialOptions) -> SignerSettings:
    kept = ("grace_s", "stream", "audit", "clock")
    given: dict[str, Any] = {name: options[name] for name in kept if name in options}  # type: ignore[literal-required]
    return SignerSettings(
        ttl_s=options.get("cache_ttl", signers_open.FILE_TTL_S),
        algorithm=algorithm_of(options.get("algorithm", "HMAC-SHA256")),
        **given,
    )


def algorithm_of(name: str) -> SignatureAlgorithm:
    """Return an algorithm by the document's name for it.

    Raises:
        ConfigurationError: it has no such name.
    """
    if name not in ALGORITHMS:
        raise ConfigurationError(f"algorithm is {' or '.join(ALGORITHMS)}, not {name!r}")
    return ALGORITHMS[name]


def _is_production(options: MaterialOptions) -> bool:
    given = options.get("production")
    return is_production() if given is None else given
