"""What is compared: each subject encrypts and decrypts bytes in its own documented way, without a network.

A subject that cannot be imported says so; it is listed in the table, never left out.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from struct import Struct
from typing import Any, Final

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.timing import Loop, loop
from keystead import KeyManager

FLOOR: Final = "AESGCM alone"
CLOSURE: Final = "bare closure"
OURS: Final = "Keystead"
OURS_CONTEXT: Final = "Keystead, context"
CONTEXT: Final = {"table": "customers", "row": "4711"}
HEADER: Final = os.urandom(26)
Pair = tuple[Callable[..., bytes], Callable[..., bytes]]


@dataclass(frozen=True, slots=True)
class Subject:
    """One row: ``loops`` gives for a plaintext the loop that encrypts, the one that decrypts, and the output's size.

    Keystead is to be faster than a rival, or than a rival's encryption where that alone is comparable.
    """

    name: str
    note: str
    loops: Callable[[bytes], tuple[Loop, Loop, int]]
    is_rival: bool = False
    only_encrypt_is_held: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """A row of a library that is not here, and why."""

    name: str
    reason: str


def all_subjects(manager: KeyManager) -> Iterator[Subject | Absent]:
    """Give every subject, floor first, with the libraries that are not installed as ``Absent``."""
    yield Subject(FLOOR, "the floor: nonce ready, 26 bytes of AAD, nothing assembled, nothing looked up", _floor)
    yield Subject(
        CLOSURE,
        "the same bytes as Keystead's: pooled nonce, key looked up by header; no context, checks, limits or rotation",
        _closure,
    )
    yield Subject(
        OURS,
        "key id and salt in an authenticated 26-byte header, rotating data keys, message and byte limits",
        partial(_one_argument, manager.local_encrypt, manager.local_decrypt),
    )
    yield Subject(
        OURS_CONTEXT, "the same with a context of two pairs, encoded and authenticated", partial(_context, manager)
    )
    for name, make in (
        ("FraiseQL", _fraiseql),
        ("Asherah", _asherah),
        ("Tink", _tink),
        ("Fernet", _fernet),
        ("AWS Encryption SDK", _aws),
    ):
        try:
            yield make()
        except ImportError as exc:
            yield Absent(name, f"not installed: no module `{exc.name}` on this Python")


def _floor(plaintext: bytes) -> tuple[Loop, Loop, int]:
    cipher, nonce = AESGCM(os.urandom(32)), os.urandom(12)
    sealed = cipher.encrypt(nonce, plaintext, HEADER)
    return loop(cipher.encrypt, nonce, plaintext, HEADER), loop(cipher.decrypt, nonce, sealed, HEADER), len(sealed)


def _closure(plaintext: bytes) -> tuple[Loop, Loop, int]:
    cipher = AESGCM(os.urandom(32))
    header, ready = HEADER, list[bytes]()
    encrypt, pop, ciphers = cipher.encrypt, ready.pop, {HEADER: cipher.decrypt}
    unpack = Struct("12s" * 1024).unpack

    def seal(data: bytes) -> bytes:
        try:
            nonce = pop()
        except IndexError:
            ready.extend(unpack(os.urandom(12 * 1024)))
            nonce = pop()
        return header + nonce + encrypt(nonce, data, header)

    def unseal(blob: bytes) -> bytes:
        found = blob[:26]
        return ciphers[found](blob[26:38], blob[38:], found)

    return _one_argument(seal, unseal, plaintext)


def _one_argument(
    encrypt: Callable[[bytes], Any], decrypt: Callable[[Any], bytes], plaintext: bytes
) -> tuple[Loop, Loop, int]:
    sealed = encrypt(plaintext)
    assert decrypt(sealed) == plaintext
    return loop(encrypt, plaintext), loop(decrypt, sealed), len(sealed)


def _context(manager: KeyManager, plaintext: bytes) -> tuple[Loop, Loop, int]:
    sealed = manager.local_encrypt(plaintext, context=CONTEXT)
    assert manager.local_decrypt(sealed, context=CONTEXT) == plaintext
    return (
        loop(manager.local_encrypt, plaintext, context=CONTEXT),
        loop(manager.local_decrypt, sealed, context=CONTEXT),
        len(sealed),
    )


def _fraiseql() -> Subject:
    from fraiseql.security.kms.application.key_manager import KeyManager as FraiseManager
    from fraiseql.security.kms.infrastructure.local import LocalKMSProvider

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manager = FraiseManager({"local": LocalKMSProvider()}, default_provider="local", default_key_id="bench")
    asyncio.run(manager.initialize())
    return Subject(
        f"FraiseQL {version('fraiseql')}",
        "`KeyManager.local_*`: nonce and ciphertext only. No header to authenticate or look up, one key per process "
        "without an id: after a rotation or a restart nothing earlier decrypts",
        partial(_one_argument, manager.local_encrypt, manager.local_decrypt),
        is_rival=True,
        only_encrypt_is_held=True,
    )


def _asherah() -> Subject:
    import asherah

    factory = asherah.SessionFactory(
        {
            "ServiceName": "bench",
            "ProductID": "bench",
            "Metastore": "memory",
            "KMS": "static",
            "StaticMasterKeyHex": os.urandom(32).hex(),
            "EnableSessionCaching": True,
        }
    )
    session = factory.get_session("partition")
    return Subject(
        f"Asherah {version('asherah')}",
        "one session kept open, keys in memory. Its time includes a fresh AES key for every row, wrapped, and JSON "
        "with base64 as output: it does more per row, and cannot leave it out",
        partial(_one_argument, session.encrypt_bytes, session.decrypt_bytes),
        is_rival=True,
    )


def _tink() -> Subject:
    import tink
    from tink import aead

    aead.register()
    primitive = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)

    def loops(plaintext: bytes) -> tuple[Loop, Loop, int]:
        sealed = primitive.encrypt(plaintext, HEADER)
        assert primitive.decrypt(sealed, HEADER) == plaintext
        return loop(primitive.encrypt, plaintext, HEADER), loop(primitive.decrypt, sealed, HEADER), len(sealed)

    return Subject(
        f"Tink {version('tink')}",
        "AES256_GCM keyset in memory, the same 26 bytes as associated data. No key store, no rotation by itself; its "
        "envelope mode, which has a KMS, takes a fresh key per message and is several times slower",
        loops,
        is_rival=True,
    )


def _fernet() -> Subject:
    fernet = Fernet(Fernet.generate_key())
    return Subject(
        "Fernet",
        "of `cryptography`: AES-128-CBC and HMAC, base64 output, no associated data",
        partial(_one_argument, fernet.encrypt, fernet.decrypt),
        is_rival=True,
    )


def _aws() -> Subject:
    import aws_encryption_sdk as sdk
    from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
    from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

    key = os.urandom(32)

    class RawKeys(RawMasterKeyProvider):  # type: ignore[misc]
        provider_id = "bench"

        def _get_raw_key(self, key_id: str) -> Any:
            wrapping = WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING
            return WrappingKey(wrapping, key, EncryptionKeyType.SYMMETRIC)

    keys = RawKeys()
    keys.add_master_key("bench")
    materials = sdk.CachingCryptoMaterialsManager(
        master_key_provider=keys, cache=sdk.LocalCryptoMaterialsCache(100), max_age=3600.0
    )
    client = sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    suite = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def encrypt(plaintext: bytes) -> Any:
        return client.encrypt(source=plaintext, materials_manager=materials, algorithm=suite)[0]

    def decrypt(sealed: bytes) -> Any:
        return client.decrypt(source=sealed, materials_manager=materials)[0]

    return Subject(
        f"AWS Encryption SDK {version('aws-encryption-sdk')}",
        "raw AES master key, caching materials manager, committing suite without signature (with it, several times "
        "slower). It derives a key per message and commits to it, which AES-GCM alone does not",
        partial(_one_argument, encrypt, decrypt),
        is_rival=True,
    )
