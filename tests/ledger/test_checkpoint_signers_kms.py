"""Checkpoints whose key never leaves its KMS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    CouldNotVerifyError,
    InvalidInputError,
    InvalidSignatureError,
    KeyStateError,
    ProviderConnectionError,
    SigningError,
)
from keystead.ledger import KmsCheckpointSigner, SealedFile, TrustPolicy, Verifier
from keystead.ledger.reading.controls import MAX_CUTS
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note, NoteKey, NoteKeyType, NoteSignature
from keystead.ledger.tlog.note_kms import IDENTIFIER, KmsNoteKey
from keystead.model import KeyPurpose, KeyReference, PublicKey, Signature, SignatureAlgorithm
from keystead.testing import FakeKMS
from tests.ledger.files import until
from tests.ledger.logs import kinds, lines_of
from tests.ledger.signer_keys import Alone, with_keys

STREAM = "example.org/app"
TEXT = Checkpoint(STREAM, 3, bytes(32)).text()

each_key = pytest.mark.parametrize("key_id", ["signer", "mac"])


@pytest.fixture
def kms() -> FakeKMS:
    return with_keys(FakeKMS())


def signer(kms: Any, key_id: str = "signer", **options: Any) -> KmsCheckpointSigner:
    return KmsCheckpointSigner(kms, key_id, STREAM, **options)


def written(path: Path, kms: FakeKMS, key_id: str, **options: Any) -> TrustPolicy:
    with SealedFile(path, stream=STREAM, kms=kms, key_id="aes", signer=signer(kms, key_id), **options) as log:
        log.append(b"1")
        return log.trust_policy()


@each_key
def test_a_log_verifies_by_the_checkpoints_of_a_kms(tmp_path: Path, kms: FakeKMS, key_id: str) -> None:
    policy = written(tmp_path / "app.log", kms, key_id)
    report = Verifier(policy, {"fake": kms}).verify(tmp_path / "app.log", expect_closed=True)
    assert (report.valid, report.closed, kinds(report)) == (True, True, [])


@each_key
def test_the_key_of_another_kms_key_is_not_trusted(tmp_path: Path, kms: FakeKMS, key_id: str) -> None:
    written(tmp_path / "app.log", kms, f"other-{key_id}")
    policy = written(tmp_path / "elsewhere.log", kms, key_id)
    report = Verifier(policy, {"fake": kms}).verify(tmp_path / "app.log")
    assert not report.valid
    assert kinds(report) == ["checkpoint"]


def test_a_log_without_session_keys_stands_on_its_kms_checkpoints(tmp_path: Path, kms: FakeKMS) -> None:
    path = tmp_path / "app.log"
    with SealedFile(path, stream=STREAM, kms=None, signer=signer(kms)) as log:
        log.append(b'"paid 10"')
        policy = log.trust_policy()
    assert Verifier(policy).verify(path).valid
    path.write_bytes(path.read_bytes().replace(b"paid 10", b"paid 99"))
    assert not Verifier(policy).verify(path).valid


def test_checkpoints_of_a_key_pair_are_checked_without_the_kms(kms: FakeKMS) -> None:
    one = signer(kms)
    signature, (key,) = one.sign(TEXT), one.keys
    kms.fail_next(100, ProviderConnectionError("the network is down"))
    assert (key.kind, signature.key_id) == (NoteKeyType.ED25519, key.key_id)
    NoteKey.parse(key.vkey).verify(TEXT, signature.value)
    with pytest.raises(InvalidSignatureError):
        key.verify(TEXT.replace("3", "4"), signature.value)


def test_a_mac_that_the_kms_cannot_check_is_not_called_invalid(tmp_path: Path, kms: FakeKMS) -> None:
    path = tmp_path / "app.log"
    policy = written(path, kms, "mac")
    sessions = {"fake": _WithoutMacs(kms)}
    with pytest.raises(CouldNotVerifyError, match="give it to the verifier"):
        Verifier(policy, sessions).verify(path)
    kms.fail_next(100, ProviderConnectionError("the network is down"))
    with pytest.raises(CouldNotVerifyError, match="network"):
        Verifier(policy, {"fake": kms}).verify(path)


def test_both_versions_of_a_rotated_key_are_in_the_policy_and_verify(tmp_path: Path, kms: FakeKMS) -> None:
    path = tmp_path / "app.log"
    with SealedFile(path, stream=STREAM, kms=kms, key_id="aes", signer=signer(kms)) as log:
        log.append(b"1")
        log.checkpoint()
        kms.rotate("signer")
        log.append(b"2")
        log.checkpoint()
        policy = log.trust_policy()
    assert len(policy.signers) == 2
    assert Verifier(policy, {"fake": kms}).verify(path, expect_closed=True).valid
    reopened = TrustPolicy.from_dict(policy.to_dict())
    assert Verifier(reopened, {"fake": kms}).verify(path, expect_closed=True).valid


def test_a_policy_from_before_a_rotation_does_not_trust_the_new_version(tmp_path: Path, kms: FakeKMS) -> None:
    path = tmp_path / "app.log"
    with SealedFile(path, stream=STREAM, kms=kms, key_id="aes", signer=signer(kms)) as log:
        policy = log.trust_policy()
        kms.rotate("signer")
        log.append(b"2")
    assert set(kinds(Verifier(policy, {"fake": kms}).verify(path))) == {"checkpoint"}


def test_a_signature_that_does_not_verify_is_never_written(kms: FakeKMS) -> None:
    async def sign(message: bytes, key_id: str, **options: Any) -> Signature:
        return await kms.sign(message + b"!", key_id, **options)

    alone = Alone(kms)
    alone.sign = sign
    with pytest.raises(SigningError, match="does not verify"):
        signer(alone).sign(TEXT)


@pytest.mark.parametrize(
    ("key_id", "match"), [("aes", "encrypts; checkpoints take one that signs"), ("", "needs the id of a key")]
)
def test_a_key_that_signs_nothing_is_refused(kms: FakeKMS, key_id: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        signer(kms, key_id).sign(TEXT)


def test_a_signer_over_a_kms_without_signatures_says_so(kms: FakeKMS) -> None:
    with pytest.raises(ConfigurationError, match="no keys that sign"):
        signer(_WithoutMacs(kms)).sign(TEXT)


def test_an_outage_of_the_signing_kms_is_an_error_and_not_a_lost_record(tmp_path: Path, kms: FakeKMS) -> None:
    path = tmp_path / "app.log"
    with SealedFile(path, stream=STREAM, kms=kms, key_id="aes", signer=signer(kms)) as log:
        policy = log.trust_policy()
        log.append(b"1")
        kms.fail_next(1, ProviderConnectionError("the network is down"), operation="sign")
        with pytest.raises(ProviderConnectionError):
            log.checkpoint()
        log.append(b"2")
        log.checkpoint()
    report = Verifier(policy, {"fake": kms}).verify(path, expect_closed=True)
    assert (report.valid, kinds(report)) == (True, [])


def test_however_often_the_kms_did_not_sign_the_log_is_no_false_alarm(tmp_path: Path, kms: FakeKMS) -> None:
    path = tmp_path / "app.log"
    with SealedFile(path, stream=STREAM, kms=kms, key_id="aes", signer=signer(kms)) as log:
        policy = log.trust_policy()
        for number in range(MAX_CUTS + 4):
            log.append(str(number).encode())
            kms.fail_next(1, ProviderConnectionError("the network is down"), operation="sign")
            with pytest.raises(ProviderConnectionError):
                log.checkpoint()
        log.checkpoint()
    report = Verifier(policy, {"fake": kms}).verify(path, expect_closed=True)
    assert (report.errors, report.closed) == ([], True)


def test_what_was_appended_while_a_checkpoint_was_signed_is_under_the_next_one(tmp_path: Path, kms: FakeKMS) -> None:
    path, alone = tmp_path / "app.log", Alone(kms)

    async def sign(message: bytes, key_id: str, **options: Any) -> Signature:
        if not log.is_closed and not path.read_bytes().count(b'"late"'):
            log.append(b'"late"')
            log.flush()
        return await kms.sign(message, key_id, **options)

    alone.sign = sign
    with SealedFile(
        path, stream=STREAM, kms=kms, key_id="aes", signer=signer(alone), checkpoint_s=0.05, buffer_s=0.01
    ) as log:
        policy = log.trust_policy()
        log.append(b"1")
        log.checkpoint()
        until(lambda: path.read_bytes().count(b'"k":"checkpoint"') == 2)
        report = Verifier(policy, {"fake": kms}).verify(path)
        (late,) = (number for number, line in enumerate(lines_of(path.read_bytes())) if b'"late"' in line)
        assert report.vouched > late


def test_a_disabled_key_signs_no_checkpoint(kms: FakeKMS) -> None:
    one = signer(kms)
    kms.disable("signer")
    with pytest.raises(KeyStateError):
        one.sign(TEXT)


@pytest.mark.parametrize("algorithm", [each for each in SignatureAlgorithm if not each.is_mac])
def test_every_algorithm_has_a_key_that_notes_can_name(algorithm: SignatureAlgorithm) -> None:
    one = KmsCheckpointSigner(_Pair(algorithm), "key", STREAM, algorithm=algorithm)
    signature, (key,) = one.sign(TEXT), one.keys
    note = Note.parse(Note(TEXT, (signature,)).render())
    parsed = NoteKey.parse(key.vkey)
    assert parsed == key
    assert note.signatures == (NoteSignature(STREAM, key.key_id, signature.value),)
    parsed.verify(TEXT, signature.value)
    with pytest.raises(InvalidSignatureError):
        parsed.verify(TEXT.replace("3", "4"), signature.value)


@pytest.mark.parametrize(
    "material",
    [
        b"",
        IDENTIFIER,
        b"keystead.org/kms/v2\n" + KmsNoteKey(SignatureAlgorithm.RSA_PSS_SHA_256, b"der").render()[len(IDENTIFIER) :],
        KmsNoteKey(SignatureAlgorithm.RSA_PSS_SHA_256, b"der").render()[:-1],
        KmsNoteKey(SignatureAlgorithm.RSA_PSS_SHA_256, b"der").render() + b"\x00",
        IDENTIFIER + b"\x00\x04none\x00\x03der",
    ],
)
def test_a_malformed_key_of_a_kms_is_refused(material: bytes) -> None:
    with pytest.raises(InvalidInputError):
        NoteKey.of(STREAM, NoteKeyType.KMS, material)


class _WithoutMacs:
    def __init__(self, kms: FakeKMS) -> None:
        self.provider_name = kms.provider_name
        self.encrypt, self.decrypt, self.describe = kms.encrypt, kms.decrypt, kms.describe


class _Pair:
    """A provider with one key pair in it."""

    provider_name = "pair"

    def __init__(self, algorithm: SignatureAlgorithm) -> None:
        self._key = _private_key(algorithm)
        self._reference = KeyReference("pair", "key", purpose=KeyPurpose.SIGN_VERIFY)
        self._algorithm = algorithm

    async def encrypt(self, *given: Any, **named: Any) -> Any:
        raise NotImplementedError

    async def decrypt(self, *given: Any, **named: Any) -> Any:
        raise NotImplementedError

    async def sign(self, message: bytes, key_id: str, *, algorithm: SignatureAlgorithm | None = None) -> Signature:
        return Signature(_sign(self._key, message, self._algorithm), self._reference, self._algorithm)

    async def public_key(self, key_id: str, *, version: str | None = None) -> PublicKey:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return PublicKey(der, self._reference, (self._algorithm,))


def _private_key(algorithm: SignatureAlgorithm) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if algorithm.value.startswith("RSA"):
        return rsa.generate_private_key(65537, 2048)
    if algorithm.value.startswith("ECDSA"):
        curves: dict[str, ec.EllipticCurve] = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}
        return ec.generate_private_key(curves[algorithm[-3:]])
    return ed25519.Ed25519PrivateKey.generate()


def _sign(key: Any, message: bytes, algorithm: SignatureAlgorithm) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding

    if algorithm is SignatureAlgorithm.ED25519:
        return bytes(key.sign(message))
    known: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
    digest = known[algorithm[-3:]]
    if algorithm.value.startswith("ECDSA"):
        return bytes(key.sign(message, ec.ECDSA(digest)))
    if algorithm.value.startswith("RSA-PSS"):
        return bytes(key.sign(message, padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH), digest))
    return bytes(key.sign(message, padding.PKCS1v15(), digest))
