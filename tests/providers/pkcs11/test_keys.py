"""Keys and their versions: which one encrypts, which are refused, and how the next one is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keystead.crypto.signatures import verify_signature
from keystead.errors import DecryptionError, InvalidInputError, KeyNotFoundError, KeyStateError
from keystead.model import KeyPurpose, KeyState
from keystead.providers.pkcs11 import keys as pkcs11_keys
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from tests.providers.pkcs11.faulty import Faults
from tests.services.softhsm import EDWARDS25519, P256, SoftHsm


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let more time pass between any two calls than a listing is good for."""
    monkeypatch.setattr(pkcs11_keys, "LISTED_FOR_S", 0.0)


async def test_an_answer_names_the_label_and_the_id_of_the_object(key: str, provider: Pkcs11KMSProvider) -> None:
    reference = (await provider.encrypt(b"value", key)).key_reference
    assert (reference.provider, reference.key_id, reference.key_version) == ("pkcs11", key, "01")
    assert reference.key_alias is None


async def test_the_newest_version_is_the_one_with_the_greatest_id(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    for id_hex in ("02", "0a", "09"):
        softhsm.make_aes(key, id_hex=id_hex)
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "0a"
    assert (await provider.describe(key)).current_version == "0a"


async def test_every_version_decrypts(key: str, provider: Pkcs11KMSProvider) -> None:
    old = await provider.encrypt(b"old", key)
    rotated = [(await provider.rotate_key(key)).key_version for _ in range(3)]
    new = await provider.encrypt(b"new", key)
    assert [await provider.decrypt(old), await provider.decrypt(new)] == [b"old", b"new"]
    assert len({"01", *rotated}) == 4
    assert new.key_reference.key_version == rotated[-1]


async def test_a_version_can_be_named_and_then_it_encrypts(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    softhsm.make_aes(key, id_hex="02")
    sealed = await provider.encrypt(b"value", f"object={key};id=%01")
    assert sealed.key_reference.key_version == "01"
    assert (sealed.key_reference.key_id, sealed.key_reference.key_alias) == (key, f"object={key};id=%01")
    assert await provider.decrypt(sealed) == b"value"


async def test_an_object_can_be_named_by_its_id_alone(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_aes(id_hex="c0ffee"))
    sealed = await provider.encrypt(b"value", "id=%c0%ff%ee")
    assert sealed.key_reference.key_id == labels[0]
    assert await provider.decrypt(sealed) == b"value"


async def test_an_object_without_a_label_is_answered_by_its_id(softhsm: SoftHsm, provider: Pkcs11KMSProvider) -> None:
    def make(token: Any, session: Any) -> None:
        flags = token.p11.MechanismFlag
        stays = {token.p11.Attribute.EXTRACTABLE: False}
        session.generate_key(
            token.p11.KeyType.AES,
            256,
            id=b"\xde\xad",
            store=True,
            capabilities=flags.ENCRYPT | flags.DECRYPT,
            template=stays,
        )

    def destroy(token: Any, session: Any) -> None:
        for each in list(session.get_objects({token.p11.Attribute.ID: b"\xde\xad"})):
            each.destroy()

    softhsm.administer(make)
    sealed = await provider.encrypt(b"value", "id=%de%ad")
    assert (sealed.key_reference.key_id, sealed.key_reference.key_alias) == ("id=%de%ad", None)
    assert await provider.decrypt(sealed) == b"value"
    softhsm.administer(destroy)


async def test_an_id_that_several_keys_have_wants_the_label_too(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels += [softhsm.make_aes(id_hex="beef"), softhsm.make_aes(id_hex="beef")]
    with pytest.raises(InvalidInputError, match="object="):
        await provider.encrypt(b"value", "id=%be%ef")


async def test_two_objects_with_one_label_and_one_id_are_refused_with_the_cure(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    softhsm.make_aes(key)
    with pytest.raises(KeyStateError, match="CKA_ID"):
        await provider.encrypt(b"value", key)


async def test_an_object_without_an_id_is_refused_with_the_cure(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_aes(id_hex=""))
    with pytest.raises(KeyStateError, match="CKA_ID"):
        await provider.encrypt(b"value", labels[0])


async def test_objects_of_several_kinds_under_one_label_are_refused(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    softhsm.make_secret(key)
    with pytest.raises(InvalidInputError, match="label of its own"):
        await provider.encrypt(b"value", key)


async def test_other_objects_of_the_label_do_not_count(softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider) -> None:
    def add(token: Any, session: Any) -> None:
        p11 = token.p11
        attribute = p11.Attribute
        data = {attribute.CLASS: p11.ObjectClass.DATA, attribute.LABEL: key, attribute.TOKEN: True}
        session.create_object({**data, attribute.VALUE: b"a note"})
        session.generate_key(p11.KeyType.DES3, label=key, id=b"\x07", store=True)

    softhsm.administer(add)
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "01"


@pytest.mark.parametrize("purpose", ["secret", "pair"])
async def test_a_key_of_another_purpose_is_the_callers_mistake(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider, purpose: str
) -> None:
    labels.append(softhsm.make_secret() if purpose == "secret" else softhsm.make_pair("EC", P256))
    with pytest.raises(InvalidInputError, match="encrypts"):
        await provider.encrypt(b"value", labels[0])


async def test_a_key_that_is_not_there_says_so(provider: Pkcs11KMSProvider) -> None:
    for call in (provider.encrypt(b"value", "absent"), provider.describe("absent"), provider.rotate_key("absent")):
        with pytest.raises(KeyNotFoundError, match="absent"):
            await call


async def test_a_version_that_was_destroyed_is_not_found_and_no_altered_ciphertext(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    await provider.rotate_key(key)
    softhsm.destroy(key, id_hex="01")
    with pytest.raises(KeyNotFoundError, match="01"):
        await provider.decrypt(sealed)


async def test_a_ciphertext_whose_id_was_altered_is_a_decryption_error(key: str, provider: Pkcs11KMSProvider) -> None:
    sealed = await provider.encrypt(b"value", key)
    blob = bytearray(sealed.ciphertext)
    blob[4] ^= 0xF0
    with pytest.raises(DecryptionError):
        await provider.decrypt(replace(sealed, ciphertext=bytes(blob)))


async def test_a_ciphertext_under_another_mechanisms_name_is_a_decryption_error(
    key: str, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    assert sealed.algorithm == "CKM_AES_GCM"
    with pytest.raises(DecryptionError):
        await provider.decrypt(replace(sealed, algorithm="CKM_AES_KEY_WRAP"))


@pytest.mark.parametrize("attributes", [{"EXTRACTABLE": True}, {"SENSITIVE": False}])
async def test_a_key_that_could_leave_the_token_is_refused_with_the_cure_and_still_decrypts(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider, attributes: dict[str, Any]
) -> None:
    labels.append(softhsm.make_aes(**attributes))
    with pytest.raises(KeyStateError, match="rotate_key"):
        await provider.encrypt(b"value", labels[0])
    tolerant = Pkcs11KMSProvider(softhsm.config(allow_extractable=True))
    sealed = await tolerant.encrypt(b"value", labels[0])
    assert await provider.decrypt(sealed) == b"value"
    await provider.rotate_key(labels[0])
    assert await provider.decrypt(await provider.encrypt(b"value", labels[0])) == b"value"
    await tolerant.aclose()


@pytest.mark.parametrize("uses", ["ENCRYPT DECRYPT", "WRAP UNWRAP"])
async def test_a_new_version_stays_in_the_token_and_does_no_more_than_the_old_one(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider, uses: str
) -> None:
    labels.append(softhsm.make_aes(uses=uses))
    await provider.rotate_key(labels[0])
    names = ("ENCRYPT", "DECRYPT", "WRAP", "UNWRAP", "SIGN", "VERIFY", "DERIVE")
    found = softhsm.attributes(labels[0], *names, "EXTRACTABLE", "SENSITIVE", "NEVER_EXTRACTABLE", "VALUE_LEN", "TOKEN")
    for version in found:
        assert {name for name in names if version[name]} == set(uses.split())
        assert (version["EXTRACTABLE"], version["SENSITIVE"], version["NEVER_EXTRACTABLE"]) == (False, True, True)
        assert (version["VALUE_LEN"], version["TOKEN"]) == (32, True)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("kind", "parameters"), [("EC", P256), ("EC_EDWARDS", EDWARDS25519), ("RSA", 2048)], ids=["EC", "Ed25519", "RSA"]
)
async def test_a_signing_key_rotates_to_a_pair_of_the_same_kind_and_keeps_the_old_public_key(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider, kind: str, parameters: Any
) -> None:
    labels.append(softhsm.make_pair(kind, parameters))
    old = await provider.sign(b"message", labels[0])
    rotated = await provider.rotate_key(labels[0])
    new = await provider.sign(b"message", labels[0])
    assert rotated.purpose is KeyPurpose.SIGN_VERIFY
    assert new.key_reference.key_version == rotated.key_version != old.key_reference.key_version
    for each in (old, new):
        public_key = await provider.public_key(labels[0], version=each.key_reference.key_version)
        verify_signature(public_key, b"message", each.value, algorithm=each.algorithm)


async def test_a_mac_key_rotates_to_one_as_long(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_secret(bits=512))
    await provider.rotate_key(labels[0])
    assert [each["VALUE_LEN"] for each in softhsm.attributes(labels[0], "VALUE_LEN")] == [64, 64]


@pytest.mark.parametrize("key_id", ["object={};id=%01", "id=%01"])
async def test_a_named_version_does_not_rotate(key: str, provider: Pkcs11KMSProvider, key_id: str) -> None:
    with pytest.raises(InvalidInputError, match="label alone"):
        await provider.rotate_key(key_id.format(key))


async def test_a_version_that_the_token_does_not_show_after_making_it_is_not_called_made(
    key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    faults.changes["generate_key"] = lambda method, args, kwargs: None
    with pytest.raises(KeyNotFoundError, match="describe"):
        await provider.rotate_key(key)


async def test_a_disabled_key_does_not_tell_what_its_next_version_is_to_do(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    softhsm.set_attributes(key, ENCRYPT=False, DECRYPT=False)
    with pytest.raises(KeyStateError, match="CKA_ENCRYPT"):
        await provider.rotate_key(key)
    assert (await provider.describe(key)).state is KeyState.DISABLED


async def test_two_processes_that_rotate_at_once_make_two_versions_that_both_decrypt(
    softhsm: SoftHsm, key: str, faults: Faults, provider: Pkcs11KMSProvider
) -> None:
    other: list[str] = []

    def another_is_faster(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        theirs = {**kwargs, "id": kwargs["id"][:-4] + bytes(4)}
        other.append(theirs["id"].hex())
        method(*args, **theirs)
        return method(*args, **kwargs)

    faults.changes["generate_key"] = another_is_faster
    rotated = await provider.rotate_key(key)
    versions = [each["ID"].hex() for each in softhsm.attributes(key, "ID")]
    assert sorted(versions) == sorted(["01", other[0], rotated.key_version or ""])
    for version in versions:
        key_id = f"object={key};id=" + "".join(f"%{byte:02x}" for byte in bytes.fromhex(version))
        assert await provider.decrypt(await provider.encrypt(b"value", key_id)) == b"value"


@pytest.mark.usefixtures("later")
async def test_a_rotation_by_another_process_is_seen(softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider) -> None:
    await provider.encrypt(b"value", key)
    softhsm.elsewhere(
        f"""
        session.generate_key(
            KeyType.AES, 256, label={key!r}, id=bytes([2]), store=True,
            capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT, template={{Attribute.EXTRACTABLE: False}},
        )
        """
    )
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "02"


async def test_a_key_that_another_process_destroyed_is_not_found(
    softhsm: SoftHsm, key: str, provider: Pkcs11KMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", key)
    softhsm.elsewhere(
        f"""
        for each in list(session.get_objects({{Attribute.LABEL: {key!r}}})):
            each.destroy()
        """
    )
    with pytest.raises(KeyNotFoundError):
        await provider.decrypt(sealed)
    with pytest.raises(KeyNotFoundError):
        await provider.encrypt(b"value", key)


async def test_the_rotation_policy_is_that_there_is_none(key: str, provider: Pkcs11KMSProvider) -> None:
    policy = await provider.get_rotation_policy(key)
    assert (policy.enabled, policy.last_rotation) == (False, None)
    with pytest.raises(KeyNotFoundError):
        await provider.get_rotation_policy("absent")


async def test_many_keys_are_known_and_the_first_ones_are_looked_up_again(
    key: str, provider: Pkcs11KMSProvider, monkeypatch: pytest.MonkeyPatch, softhsm: SoftHsm, labels: list[str]
) -> None:
    monkeypatch.setattr(pkcs11_keys, "_MAX_LISTINGS", 1)
    labels.append(softhsm.make_aes())
    sealed = [await provider.encrypt(b"value", each) for each in (key, labels[0], key)]
    assert [await provider.decrypt(each) for each in sealed] == [b"value"] * 3
