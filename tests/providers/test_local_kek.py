from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import DecryptionError, InvalidInputError, SystemShutdownError
from keystead.model import SecretBytes
from keystead.providers.local.kek import MAX_PLAINTEXT_SIZE, KekVersion, LocalKek, version_of
from keystead.providers.local.kek_file import read_kek_file
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from tests.crypto.vectors import cases

VECTORS = cases("local-kek-v1.json")


def kek_of(number: int, key: bytes) -> LocalKek:
    return LocalKek([KekVersion(number, SecretBytes(key))])


@pytest.fixture
def kek() -> LocalKek:
    return kek_of(7, bytes(range(32)))


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["comment"])
def test_a_vector_encrypts_to_its_bytes(case: dict[str, Any]) -> None:
    kek = kek_of(case["version"], bytes.fromhex(case["kek"]))
    sealed = kek.seal(
        bytes.fromhex(case["plaintext"]),
        case["key_id"],
        dict(case["context"]),
        random=lambda size: bytes.fromhex(case["nonce"]),
    )
    assert sealed.hex() == case["ciphertext"]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["comment"])
def test_a_vector_decrypts(case: dict[str, Any]) -> None:
    kek = kek_of(case["version"], bytes.fromhex(case["kek"]))
    opened = kek.open(bytes.fromhex(case["ciphertext"]), case["key_id"], dict(case["context"]))
    assert opened.hex() == case["plaintext"]


@pytest.mark.parametrize("case", cases("local-kek-v1.json", "files"))
def test_a_vector_file_reads_as_its_versions(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_text(case["content"])
    path.chmod(0o600)
    expected = [
        KekVersion(v["number"], SecretBytes(bytes.fromhex(v["kek"])), datetime.fromisoformat(v["created_at"]))
        for v in case["versions"]
    ]
    assert list(read_kek_file(str(path))) == expected


@pytest.mark.parametrize("case", cases("local-kek-v1.json", "root_keys"))
async def test_a_vector_root_key_expands_to_its_kek(case: dict[str, Any]) -> None:
    root_key, kek = bytes.fromhex(case["root_key"]), bytes.fromhex(case["kek"])
    sealed = await LocalKMSProvider(LocalKMSConfig(root_key=lambda: root_key)).encrypt(b"value", "default")
    assert await LocalKMSProvider(LocalKMSConfig(master_key=kek)).decrypt(sealed) == b"value"


def test_every_flipped_bit_is_a_decryption_error(kek: LocalKek) -> None:
    sealed = kek.seal(b"value", "default", {"a": "b"}, random=os.urandom)
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptionError):
            kek.open(bytes(altered), "default", {"a": "b"})


def test_every_truncation_is_a_decryption_error(kek: LocalKek) -> None:
    sealed = kek.seal(b"value", "default", None, random=os.urandom)
    for length in range(len(sealed)):
        with pytest.raises(DecryptionError):
            kek.open(sealed[:length], "default", None)


def test_wrong_key_context_and_bytes_are_not_told_apart(kek: LocalKek) -> None:
    sealed = kek.seal(b"value", "default", None, random=os.urandom)
    texts = set()
    for opener, ciphertext, key_id, context in [
        (kek_of(7, bytes(32)), sealed, "default", {}),
        (kek, sealed, "other", {}),
        (kek, sealed, "default", {"a": "b"}),
        (kek, sealed[:-1] + bytes([sealed[-1] ^ 1]), "default", {}),
        (kek, sealed, "lone \ud800", {}),
        (kek, b"garbage", "default", {}),
    ]:
        with pytest.raises(DecryptionError) as caught:
            opener.open(ciphertext, key_id, context)
        texts.add(str(caught.value))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert texts == {"decryption failed"}


def test_an_unknown_version_is_a_decryption_error_that_names_it(kek: LocalKek) -> None:
    sealed = kek_of(9, bytes(32)).seal(b"value", "default", None, random=os.urandom)
    with pytest.raises(DecryptionError, match="version 9"):
        kek.open(sealed, "default", None)


def test_a_ciphertext_names_its_version(kek: LocalKek) -> None:
    assert version_of(kek.seal(b"", "default", None, random=os.urandom)) == 7


def test_key_id_and_context_cannot_be_shifted_into_each_other(kek: LocalKek) -> None:
    sealed = kek.seal(b"value", "ab", {"c": "d"}, random=os.urandom)
    with pytest.raises(DecryptionError):
        kek.open(sealed, "a", {"bc": "d"})


def test_more_than_the_limit_is_refused(kek: LocalKek) -> None:
    with pytest.raises(InvalidInputError, match="64 MiB"):
        kek.seal(bytes(MAX_PLAINTEXT_SIZE + 1), "default", None, random=os.urandom)


def test_a_wiped_kek_neither_encrypts_nor_decrypts(kek: LocalKek) -> None:
    sealed = kek.seal(b"value", "default", None, random=os.urandom)
    kek.wipe()
    with pytest.raises(SystemShutdownError):
        kek.seal(b"value", "default", None, random=os.urandom)
    with pytest.raises(SystemShutdownError):
        kek.open(sealed, "default", None)


def test_a_wiped_kek_holds_zeros_only(kek: LocalKek) -> None:
    kek.wipe()
    assert [bytes(key) for key in kek._keys.values()] == [bytes(32)]


def test_many_key_ids_take_bounded_memory(kek: LocalKek) -> None:
    for number in range(1000):
        kek.seal(b"", str(number), None, random=os.urandom)
    assert len(kek._ciphers) <= 256
