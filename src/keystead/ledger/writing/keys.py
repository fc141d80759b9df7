"""What seals a log and signs its checkpoints, where its keys are in the environment, in files, or behind a signer.

The environment's and files' keys wrap session keys here, each key id by a key of its own; they are read now, so that a
key that is missing is no surprise of the first record's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from keystead.config import is_production
from keystead.ledger.format.session_source import ChainedSessions, KmsSessions, SessionSource
from keystead.ledger.signers.signer import KmsSigner
from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner
from keystead.ledger.tlog.checkpoint_signers_kms import KmsCheckpointSigner
from keystead.ledger.tlog.note import NoteKey, NoteKeyType, NoteSignature
from keystead.model import SignatureAlgorithm
from keystead.ports import Closes, DescribesKeys, KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.key_material import KeyMaterial
from keystead.providers.key_sources import FileSource, MaterialSource, VariableSource
from keystead.providers.local.provider import DEFAULT_KEY_ID, LocalKMSConfig, LocalKMSProvider
from keystead.runtime.loop import background_loop

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")


@dataclass(frozen=True, slots=True)
class LogKeys:
    """What a log is sealed with.

    Attributes:
        source: gives session keys.
        signer: signs checkpoints; None leaves that to an Ed25519 key in a file.
        provider: the KMS that ``source`` or ``signer`` calls.
        owns_provider: whether ``close`` closes the KMS.
    """

    source: SessionSource
    signer: CheckpointSigner | None
    provider: KmsProvider
    owns_provider: bool = True

    @property
    def providers(self) -> Mapping[str, KmsProvider]:
        """The KMS by the name that the log knows it by."""
        return {self.provider.provider_name: self.provider}

    def close(self) -> None:
        """Close the KMS, if it is this object's own; idempotent."""
        if self.owns_provider and isinstance(self.provider, Closes):
            background_loop.run(self.provider.aclose())


class SeedSigner:
    """Ed25519 keys whose seeds somebody else keeps, the newest first: it signs, and readers trust all of them."""

    is_remote = False
    uri: str | None = None

    def __init__(self, name: str, seeds: tuple[KeyMaterial, ...]) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._private_keys: list[Ed25519PrivateKey] = [Ed25519PrivateKey.from_private_bytes(each.key) for each in seeds]
        self.keys = tuple(
            NoteKey.of(name, NoteKeyType.ED25519, each.public_key().public_bytes_raw()) for each in self._private_keys
        )

    def __repr__(self) -> str:
        return f"SeedSigner({self.keys[0].name!r}, keys hidden)"

    def sign(self, text: str) -> NoteSignature:
        """Return the signature of ``text`` by the newest key."""
        return NoteSignature(self.keys[0].name, self.keys[0].key_id, self._private_keys[0].sign(text.encode()))

    def close(self) -> None:
        """Do nothing."""


def variable_keys(
    variable: str,
    stream: str,
    *,
    key_id: str = "",
    algorithm: SignatureAlgorithm = SignatureAlgorithm.HMAC_SHA_256,
    environ: Mapping[str, str] | None = None,
) -> LogKeys:
    """Return keys from a variable of the environment. One that is taken away later goes on being used.

    Args:
        algorithm: ``ED25519``: the keys are seeds as well, which sign checkpoints.

    Raises:
        ConfigurationError: it holds no key, or what looks like a password in production.
    """
    remembering = _Environment(variable, os.environ if environ is None else environ)
    production = is_production()
    config = LocalKMSConfig(env=variable, allow_in_production=True)
    provider = LocalKMSProvider(config, production=production, environ=remembering)
    uri = _uri("env", variable, key_id) if variable.isidentifier() and variable.isascii() else None
    source = VariableSource(variable, environ=remembering, production=production)
    return _local(provider, stream, key_id, uri, source if algorithm is SignatureAlgorithm.ED25519 else None)


def file_keys(
    path: str | os.PathLike[str],
    stream: str,
    *,
    key_id: str = "",
    algorithm: SignatureAlgorithm = SignatureAlgorithm.HMAC_SHA_256,
    allow_group_read: bool = False,
) -> LogKeys:
    """Return keys from a file, or from a folder: ``<key_id>.key`` in it, if that is there, else all of its files.

    Raises:
        KeyNotFoundError: it is not there.
        ConfigurationError: others may read it, or it holds no key.
    """
    full = os.path.abspath(os.fspath(path))
    named = os.path.join(full, f"{key_id}.key")
    if _FILE_NAME.match(key_id) and os.path.isfile(named):
        full = named
    production = is_production()
    config = LocalKMSConfig(path=full, allow_group_read=allow_group_read, allow_in_production=True)
    provider = LocalKMSProvider(config, production=production)
    options = {"allow_group_read": "true"} if allow_group_read else {}
    uri = _uri("file", quote(full), key_id, **options)
    source = FileSource(full, allow_group_read=allow_group_read, production=production)
    return _local(provider, stream, key_id, uri, source if algorithm is SignatureAlgorithm.ED25519 else None)


def given_keys(
    key: bytes,
    stream: str,
    *,
    key_id: str = "",
    algorithm: SignatureAlgorithm = SignatureAlgorithm.HMAC_SHA_256,
) -> LogKeys:
    """Return keys from 32 bytes that the caller has.

    Raises:
        InvalidInputError: not 32 bytes.
    """
    provider = LocalKMSProvider(LocalKMSConfig(master_key=key, allow_in_production=True), production=is_production())
    signer = SeedSigner(stream, (KeyMaterial.of(key),)) if algorithm is SignatureAlgorithm.ED25519 else None
    guarded = GuardedProvider(provider, provider.provider_name)
    return LogKeys(KmsSessions(guarded, key_id or DEFAULT_KEY_ID), signer, guarded)


def signer_keys(
    signer: KmsSigner, stream: str, *, signs_natively: bool, uri: str | None = None, owns_provider: bool = True
) -> LogKeys:
    """Return keys behind a signer's KMS: session keys that it wraps, or checkpoints that it signs over records' hashes.

    Args:
        uri: what opens the KMS, for the policy of readers.
    """
    source: SessionSource = ChainedSessions()
    signs = None
    if signs_natively:
        signs = KmsCheckpointSigner(signer.provider, signer.key_id, stream, algorithm=signer.algorithm, uri=uri)
    else:
        source = KmsSessions(signer.provider, signer.key_id, uri=uri)
    return LogKeys(source, signs, signer.provider, owns_provider=owns_provider)


class _Environment(Mapping[str, str]):
    """The environment, in which one variable stays as it was last seen when it is taken away."""

    def __init__(self, variable: str, environ: Mapping[str, str]) -> None:
        self._variable = variable
        self._environ = environ
        self._seen: str | None = None

    def __getitem__(self, name: str) -> str:
        value = self._environ.get(name)
        if name != self._variable:
            return self._environ[name]
        self._seen = self._seen if value is None else value
        if self._seen is None:
            raise KeyError(name)
        return self._seen

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def _local(
    provider: LocalKMSProvider, stream: str, key_id: str, uri: str | None, seeds: MaterialSource | None
) -> LogKeys:
    guarded = GuardedProvider(provider, provider.provider_name)
    key_id = key_id or DEFAULT_KEY_ID
    if isinstance(guarded, DescribesKeys):
        background_loop.run(guarded.describe(key_id))
    signer = None if seeds is None else SeedSigner(stream, seeds.read().keys)
    return LogKeys(KmsSessions(guarded, key_id, uri=uri), signer, guarded)


def _uri(scheme: str, body: str, key_id: str, **options: str) -> str:
    named = {"key": key_id} if key_id else {}
    return f"{scheme}:{body}?{urlencode({**named, **options, 'allow_in_production': 'true'}, quote_via=quote)}"
