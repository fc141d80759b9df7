"""The container of several wraps: its vectors, and that it has one spelling."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.model import EncryptedData, KeyReference, SecretBytes
from keystead.providers.local.kek import KekVersion, LocalKek
from keystead.providers.multi.format import Container, Content, Wrap, seal, with_commitment
from keystead.providers.multi.provider import MultiKMSProvider
from tests.crypto.vectors import cases, context_of

FILE = "multi-kek-v1.json"
TESTS = cases(FILE)
vectors = pytest.mark.parametrize("case", TESTS, ids=lambda case: case["comment"])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = texts.filter(lambda text: text and ":" not in text)
wraps = st.builds(Wrap, names, texts.filter(bool), texts, texts, st.binary(min_size=1, max_size=40))
containers = st.builds(
    lambda asked, wraps, body, commitment: Container(
        commitment, asked, tuple(sorted(wraps, key=lambda wrap: wrap.name.encode())), body
    ),
    texts.filter(bool),
    st.lists(wraps, min_size=1, max_size=5, unique_by=lambda wrap: wrap.name),
    st.binary(min_size=28, max_size=60),
    st.binary(min_size=16, max_size=16),
)


def wraps_in(case: dict[str, Any]) -> list[Wrap]:
    return [
        Wrap(each["name"], each["key_id"], each["key_version"], each["algorithm"], bytes.fromhex(each["wrapped_key"]))
        for each in case["wraps"]
    ]


class VectorKek:
    """A member that knows the local KEK a vector's wrap was made with."""

    provider_name = "vector"

    def __init__(self, wrap: dict[str, Any]) -> None:
        self._wrap = wrap

    async def encrypt(self, plaintext: bytes, key_id: str, **options: Any) -> EncryptedData:
        raise NotImplementedError

    async def decrypt(self, encrypted: EncryptedData, **options: Any) -> bytes:
        version = KekVersion(int(self._wrap["key_version"]), SecretBytes(bytes.fromhex(self._wrap["kek"])))
        return LocalKek([version]).open(encrypted.ciphertext, encrypted.key_reference.key_id, options["context"])


@vectors
def test_what_is_sealed_is_the_vector(case: dict[str, Any]) -> None:
    content = Content.of(bytes.fromhex(case["content_key"]), bytes.fromhex(case["plaintext"]))
    nonce = bytes.fromhex(case["nonce"])
    sealed = seal(content, case["key_id_asked_for"], reversed(wraps_in(case)), context_of(case), nonce=nonce)
    assert sealed.to_bytes().hex() == case["ciphertext"]
    assert content.commitment.hex() == case["commitment"]


@vectors
def test_the_vector_is_read(case: dict[str, Any]) -> None:
    parsed = Container.parse(bytes.fromhex(case["ciphertext"]))
    assert list(parsed.wraps) == wraps_in(case)
    assert (parsed.asked, parsed.key_id, parsed.key_version) == (
        case["key_id_asked_for"],
        case["key_id"],
        case["key_version"],
    )
    opened = parsed.open(bytes.fromhex(case["content_key"]), context_of(case))
    assert opened.plaintext == bytes.fromhex(case["plaintext"])


@vectors
async def test_each_member_of_a_vector_opens_it_alone(case: dict[str, Any]) -> None:
    reference = KeyReference("multi", case["key_id"], key_version=case["key_version"])
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    sealed = EncryptedData(bytes.fromhex(case["ciphertext"]), reference, "multi-v1", moment, context_of(case))
    for wrap in case["wraps"]:
        alone = MultiKMSProvider({wrap["name"]: VectorKek(wrap)})
        assert await alone.decrypt(sealed) == bytes.fromhex(case["plaintext"])


@pytest.mark.parametrize("case", cases(FILE, "invalid"), ids=lambda case: case["comment"])
def test_what_a_writer_does_not_make_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(InvalidCiphertextError):
        Container.parse(bytes.fromhex(case["ciphertext"]))


@vectors
def test_every_truncation_is_refused(case: dict[str, Any]) -> None:
    whole = bytes.fromhex(case["ciphertext"])
    for length in range(len(whole)):
        with pytest.raises(InvalidCiphertextError):
            Container.parse(whole[:length])


@vectors
def test_a_flipped_bit_is_refused_or_does_not_open(case: dict[str, Any]) -> None:
    whole, key = bytes.fromhex(case["ciphertext"]), bytes.fromhex(case["content_key"])
    for position in range(len(whole) * 8):
        altered = bytearray(whole)
        altered[position // 8] ^= 1 << position % 8
        with pytest.raises(DecryptionError):
            Container.parse(bytes(altered)).open(key, context_of(case))


@given(containers)
def test_what_is_written_is_read_again(container: Container) -> None:
    assert Container.parse(container.to_bytes()) == container


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"\xac\x01" + tail))
def test_bytes_that_are_read_have_no_other_spelling(blob: bytes) -> None:
    try:
        parsed = Container.parse(blob)
    except InvalidCiphertextError:
        return
    assert parsed.to_bytes() == blob


@given(containers, st.data())
def test_a_container_that_was_damaged_is_refused_or_is_another(container: Container, data: st.DataObject) -> None:
    whole = bytearray(container.to_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        parsed = Container.parse(bytes(whole))
    except InvalidCiphertextError:
        return
    assert parsed.to_bytes() == bytes(whole)


@pytest.mark.parametrize("other", [b"\x01" + bytes(31), bytes(31), b""])
def test_another_content_key_opens_nothing(other: bytes) -> None:
    container = seal(Content.of(bytes(32), b"value"), "k", [Wrap("a", "k", "", "x", b"w")], None, nonce=bytes(12))
    assert container.open(bytes(32), None).plaintext == b"value"
    with pytest.raises(DecryptionError):
        container.open(other, None)


def test_the_commitment_is_to_both_the_key_and_the_plaintext() -> None:
    commitments = {
        Content.of(key, value).commitment for key in (bytes(32), b"\x01" + bytes(31)) for value in (b"", b"v")
    }
    assert len(commitments) == 4


def test_a_context_that_has_the_commitments_own_key_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"keystead\.commitment"):
        with_commitment({"keystead.commitment": "00"}, bytes(16))


def test_wrapped_keys_and_bodies_are_not_in_the_repr() -> None:
    content = Content.of(bytes(32), b"secret")
    container = seal(content, "k", [Wrap("a", "k", "", "x", b"wrapped")], None, nonce=b"nonce number")
    assert "secret" not in repr(content)
    assert "wrapped" not in repr(container)
    assert "nonce" not in repr(container)
