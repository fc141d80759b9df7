"""MACs and signatures: which algorithms a key has, and what is refused."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyStateError,
    ProviderConnectionError,
    SigningError,
)
from keystead.model import KeyPurpose, KeyState, SignatureAlgorithm
from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from tests.providers.pkcs11.faulty import Faults
from tests.services.softhsm import EDWARDS25519, P256, P384, P521, SoftHsm

A = SignatureAlgorithm
RSA = (
    A.RSA_PSS_SHA_256,
    A.RSA_PSS_SHA_384,
    A.RSA_PSS_SHA_512,
    A.RSA_PKCS1_SHA_256,
    A.RSA_PKCS1_SHA_384,
    A.RSA_PKCS1_SHA_512,
)


@pytest.fixture
def mac_key(softhsm: SoftHsm, labels: list[str]) -> str:
    labels.append(softhsm.make_secret())
    return labels[-1]


@pytest.mark.parametrize(
    ("kind", "parameters", "algorithms"),
    [
        ("RSA", 2048, RSA),
        ("EC", P256, (A.ECDSA_SHA_256, A.ECDSA_SHA_384, A.ECDSA_SHA_512)),
        ("EC", P384, (A.ECDSA_SHA_384, A.ECDSA_SHA_256, A.ECDSA_SHA_512)),
        ("EC", P521, (A.ECDSA_SHA_512, A.ECDSA_SHA_256, A.ECDSA_SHA_384)),
        ("EC_EDWARDS", EDWARDS25519, (A.ED25519,)),
    ],
)
async def test_a_key_signs_with_each_of_its_algorithms_and_its_own_hash_is_the_default(
    softhsm: SoftHsm, provider: Pkcs11KMSProvider, kind: str, parameters: Any, algorithms: tuple[A, ...]
) -> None:
    label = softhsm.shared_pair(kind, parameters)
    description = await provider.describe(label)
    assert description.algorithms == algorithms
    assert description.key_reference.purpose is KeyPurpose.SIGN_VERIFY
    public_key = await provider.public_key(label)
    load_der_public_key(public_key.der)
    for algorithm in algorithms:
        signature = await provider.sign(b"message", label, algorithm=algorithm)
        verify_signature(public_key, b"message", signature.value, algorithm=algorithm)
    assert (await provider.sign(b"message", label)).algorithm is algorithms[0]


@pytest.mark.parametrize(
    ("bits", "algorithms"),
    [
        (256, (A.HMAC_SHA_256,)),
        (384, (A.HMAC_SHA_384, A.HMAC_SHA_256)),
        (512, (A.HMAC_SHA_512, A.HMAC_SHA_384, A.HMAC_SHA_256)),
    ],
)
async def test_a_mac_key_has_the_hashes_that_it_is_long_enough_for(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider, bits: int, algorithms: tuple[A, ...]
) -> None:
    labels.append(softhsm.make_secret(bits=bits))
    assert (await provider.describe(labels[0])).algorithms == algorithms
    for algorithm in algorithms:
        mac = await provider.mac(b"message", labels[0], algorithm=algorithm)
        await provider.verify_mac(b"message", mac)
    assert (await provider.mac(b"message", labels[0])).algorithm is algorithms[0]


async def test_a_mac_is_the_hmac_of_the_message(softhsm: SoftHsm, labels: list[str]) -> None:
    key = bytes(range(32))

    def put(token: Any, session: Any) -> None:
        attribute = token.p11.Attribute
        session.create_object(
            {
                attribute.CLASS: token.p11.ObjectClass.SECRET_KEY,
                attribute.KEY_TYPE: token.p11.KeyType.GENERIC_SECRET,
                attribute.TOKEN: True,
                attribute.PRIVATE: True,
                attribute.SENSITIVE: True,
                attribute.EXTRACTABLE: False,
                attribute.SIGN: True,
                attribute.LABEL: "known mac key",
                attribute.ID: b"\x01",
                attribute.VALUE: key,
            }
        )

    softhsm.administer(put)
    labels.append("known mac key")
    provider = Pkcs11KMSProvider(softhsm.config())
    mac = await provider.mac(b"message", labels[0])
    await provider.aclose()
    assert mac.value == hmac.digest(key, b"message", "sha256")


async def test_a_mac_key_that_is_too_short_says_what_is_wanted(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_secret(bits=128))
    with pytest.raises(KeyStateError, match="256"):
        await provider.mac(b"message", labels[0])


async def test_an_rsa_key_under_2048_bits_signs_nothing(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_pair("RSA", 1024))
    assert (await provider.describe(labels[0])).algorithms == ()
    with pytest.raises(KeyStateError, match="2048"):
        await provider.sign(b"message", labels[0])
    with pytest.raises(InvalidInputError):
        await provider.sign(b"message", labels[0], algorithm=A.RSA_PSS_SHA_256)


async def test_a_curve_that_is_not_known_signs_nothing_and_shows_no_public_key(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_pair("EC", bytes.fromhex("06052b8104000a")))  # secp256k1
    with pytest.raises(KeyStateError, match="P-256"):
        await provider.sign(b"message", labels[0])
    with pytest.raises(SigningError):
        await provider.public_key(labels[0])


async def test_an_algorithm_of_another_key_is_refused_with_those_that_work(
    softhsm: SoftHsm, provider: Pkcs11KMSProvider
) -> None:
    with pytest.raises(InvalidInputError, match="ECDSA-SHA-256"):
        await provider.sign(b"message", softhsm.shared_pair("EC", P256), algorithm=A.ED25519)


async def test_a_mechanism_that_the_token_lacks_is_not_offered(
    softhsm: SoftHsm, provider: Pkcs11KMSProvider, faults: Faults
) -> None:
    label = softhsm.shared_pair("RSA", 2048)
    await provider.aclose()
    faults.missing_mechanisms = {faults.p11.Mechanism.RSA_PKCS_PSS}
    other = Pkcs11KMSProvider(softhsm.config())
    assert (await other.describe(label)).algorithms == RSA[3:]
    await other.aclose()


@pytest.mark.parametrize("uses", ["VERIFY", ""])
async def test_a_mac_key_that_does_not_sign_is_disabled(
    softhsm: SoftHsm, mac_key: str, provider: Pkcs11KMSProvider, uses: str
) -> None:
    mac = await provider.mac(b"message", mac_key)
    softhsm.set_attributes(mac_key, SIGN=False, VERIFY=uses == "VERIFY")
    await provider.describe(mac_key)
    with pytest.raises(KeyStateError, match="CKA_SIGN"):
        await provider.mac(b"message", mac_key)
    assert (await provider.describe(mac_key)).state is KeyState.DISABLED
    if uses:
        await provider.verify_mac(b"message", mac)
    else:
        with pytest.raises(KeyStateError, match="CKA_VERIFY"):
            await provider.verify_mac(b"message", mac)


async def test_a_key_that_signs_and_does_not_verify_checks_by_signing(
    softhsm: SoftHsm, mac_key: str, provider: Pkcs11KMSProvider
) -> None:
    mac = await provider.mac(b"message", mac_key)
    softhsm.set_attributes(mac_key, VERIFY=False)
    await provider.describe(mac_key)
    await provider.verify_mac(b"message", mac)
    with pytest.raises(InvalidSignatureError):
        await provider.verify_mac(b"another", mac)


async def test_a_key_that_could_leave_the_token_makes_no_mac_and_still_checks_them(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_secret(EXTRACTABLE=True))
    tolerant = Pkcs11KMSProvider(softhsm.config(allow_extractable=True))
    mac = await tolerant.mac(b"message", labels[0])
    with pytest.raises(KeyStateError, match="rotate_key"):
        await provider.mac(b"message", labels[0])
    await provider.verify_mac(b"message", mac)
    await tolerant.aclose()


async def test_that_a_mac_could_not_be_checked_is_not_that_it_is_invalid(
    mac_key: str, provider: Pkcs11KMSProvider, faults: Faults
) -> None:
    mac = await provider.mac(b"message", mac_key)
    faults.fail("verify", "DeviceError")
    with pytest.raises(ProviderConnectionError):
        await provider.verify_mac(b"message", mac)
    await provider.verify_mac(b"message", mac)


async def test_a_mac_of_a_version_that_is_not_there_could_not_be_checked(
    mac_key: str, provider: Pkcs11KMSProvider
) -> None:
    mac = await provider.mac(b"message", mac_key)
    for version in ("02", "no hexadecimal"):
        with pytest.raises(KeyNotFoundError):
            await provider.verify_mac(
                b"message", replace(mac, key_reference=replace(mac.key_reference, key_version=version))
            )
    await provider.verify_mac(b"message", replace(mac, key_reference=replace(mac.key_reference, key_version=None)))


async def test_a_signature_is_no_mac(mac_key: str, provider: Pkcs11KMSProvider) -> None:
    mac = await provider.mac(b"message", mac_key)
    for algorithm in (A.ED25519, A.HMAC_SHA_512):
        with pytest.raises(InvalidSignatureError):
            await provider.verify_mac(b"message", replace(mac, algorithm=algorithm))


async def test_a_message_that_goes_to_the_token_whole_has_a_limit(
    softhsm: SoftHsm, mac_key: str, provider: Pkcs11KMSProvider
) -> None:
    mac = await provider.mac(bytes(65536), mac_key)
    await provider.verify_mac(bytes(65536), mac)
    with pytest.raises(InvalidInputError, match="hash"):
        await provider.mac(bytes(65537), mac_key)
    with pytest.raises(InvalidSignatureError):
        await provider.verify_mac(bytes(65537), mac)
    with pytest.raises(InvalidInputError, match="hash"):
        await provider.sign(bytes(65537), softhsm.shared_pair("EC_EDWARDS", EDWARDS25519))


async def test_text_is_refused_with_the_cure(mac_key: str, provider: Pkcs11KMSProvider) -> None:
    with pytest.raises(InvalidInputError, match=r"\.encode\(\)"):
        await provider.mac("text", mac_key)  # type: ignore[arg-type]  # what is under test


async def test_a_private_key_without_its_public_object_signs_and_says_what_is_missing(
    softhsm: SoftHsm, labels: list[str], provider: Pkcs11KMSProvider
) -> None:
    labels.append(softhsm.make_pair("EC", P256))
    softhsm.destroy(labels[0], public_only=True)
    await provider.sign(b"message", labels[0])
    with pytest.raises(KeyNotFoundError, match="import it"):
        await provider.public_key(labels[0])


async def test_an_encrypting_key_has_no_public_key_and_signs_nothing(key: str, provider: Pkcs11KMSProvider) -> None:
    for call in (provider.public_key(key), provider.sign(b"message", key), provider.mac(b"message", key)):
        with pytest.raises(InvalidInputError, match="encrypts"):
            await call


async def test_an_answer_that_is_no_ecdsa_signature_is_a_signing_error(
    softhsm: SoftHsm, provider: Pkcs11KMSProvider, faults: Faults
) -> None:
    label = softhsm.shared_pair("EC", P256)
    faults.changes["sign"] = lambda method, args, kwargs: b"odd"
    with pytest.raises(SigningError):
        await provider.sign(b"message", label)


async def test_a_point_that_is_not_on_the_curve_is_a_signing_error(
    softhsm: SoftHsm, provider: Pkcs11KMSProvider, faults: Faults
) -> None:
    label = softhsm.shared_pair("EC", P256)
    faults.changes["__getitem__"] = lambda method, args, kwargs: b"\x04" + bytes(64)
    with pytest.raises(SigningError, match="no form"):
        await provider.public_key(label)


@pytest.mark.parametrize("wrapping", ["none", "bit string"])
async def test_a_point_is_read_without_the_wrapping_that_other_tokens_leave_out(
    softhsm: SoftHsm, provider: Pkcs11KMSProvider, faults: Faults, wrapping: str
) -> None:
    label = softhsm.shared_pair("EC_EDWARDS", EDWARDS25519)
    expected = (await provider.public_key(label)).der

    def bare(method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = method(*args, **kwargs)
        if args[0] != faults.p11.Attribute.EC_POINT:
            return value
        return value[2:] if wrapping == "none" else b"\x03\x21\x00" + value[2:]

    faults.changes["__getitem__"] = bare
    assert (await provider.public_key(label)).der == expected
