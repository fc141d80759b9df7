"""A trail that is sealed under another KMS of the store's own kind verifies, from before and after that was set."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.errors import DecryptionError, InvalidInputError, InvalidSignatureError
from keystead.manager.either_kms import EitherKms
from keystead.model import KeyReference, Signature, SignatureAlgorithm
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from tests.audit.places import KEK, OTHER_KEK, Place, an_empty_place, kinds, options, seal


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store."""
    return an_empty_place(request, tmp_path)


def local(kek: bytes) -> LocalKMSProvider:
    return LocalKMSProvider(LocalKMSConfig(master_key=kek))


async def test_sessions_under_both_are_as_they_were_written(place: Place) -> None:
    async with place.open(audit=options(begins=True)) as km:
        await km.rotate_data_key()
        await seal(km)
    own = options(kms=local(OTHER_KEK), kms_key_id="default")
    async with place.open(audit=own) as km:
        await km.rotate_data_key()
        await seal(km)
        report = await km.audit.verify()
        assert kinds(report) == set()
        assert report.valid
    place.tamper("DELETE FROM audit_log WHERE seq = 2")
    async with place.open(audit=own) as km:
        assert not (await km.audit.verify()).valid


async def test_either_decrypts_and_what_neither_can_is_refused_as_by_the_first() -> None:
    both = EitherKms(local(KEK), local(OTHER_KEK))
    assert both.provider_name == "local"
    for kek in (KEK, OTHER_KEK):
        assert await both.decrypt(await local(kek).encrypt(b"x", "default")) == b"x"
    assert await local(KEK).decrypt(await both.encrypt(b"y", "default")) == b"y"
    with pytest.raises(DecryptionError):
        await both.decrypt(await local(bytes(32)).encrypt(b"x", "default"))
    with pytest.raises(InvalidInputError):
        await both.encrypt(b"x", "")


class OfMacs(LocalKMSProvider):
    """A KMS whose MACs are its key before the message."""

    def __init__(self, kek: bytes) -> None:
        super().__init__(LocalKMSConfig(master_key=kek))
        self._made = kek

    async def mac(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        return Signature(self._made + message, KeyReference("local", key_id), SignatureAlgorithm.HMAC_SHA_256)

    async def verify_mac(self, message: bytes, mac: Signature) -> None:
        if mac.value != self._made + message:
            raise InvalidSignatureError("another key")


async def test_a_mac_is_good_if_either_says_so() -> None:
    both = EitherKms(OfMacs(KEK), OfMacs(OTHER_KEK))
    for kek in (KEK, OTHER_KEK):
        await both.verify_mac(b"x", await OfMacs(kek).mac(b"x", "default"))
    await OfMacs(KEK).verify_mac(b"y", await both.mac(b"y", "default"))
    with pytest.raises(InvalidSignatureError):
        await both.verify_mac(b"x", await OfMacs(bytes(32)).mac(b"x", "default"))
