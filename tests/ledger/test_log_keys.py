"""Keys that seal a log: of the environment, of files, given, and behind a signer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.errors import ConfigurationError, InvalidInputError, KekMismatchError, KeyNotFoundError, KMSError
from keystead.ledger import SealedFile, TrustPolicy, Verifier
from keystead.ledger.format.session_source import ChainedSessions, KmsSessions
from keystead.ledger.signers.key_text import keys_in
from keystead.ledger.signers.signer import KmsSigner, SignerSettings
from keystead.ledger.writing.keys import LogKeys, SeedSigner, file_keys, given_keys, signer_keys, variable_keys
from keystead.model import KeyPurpose, SignatureAlgorithm
from keystead.providers.key_material import KeyMaterial
from keystead.testing import FakeKMS

STREAM = "example.org/app"
KEY = bytes(range(32))
OTHER = bytes(range(32, 64))


def write(path: Path, keys: LogKeys) -> TrustPolicy:
    with SealedFile(path, stream=STREAM, kms=keys.source, signer=keys.signer) as log:
        log.append(b"1")
        policy = log.trust_policy()
    keys.close()
    return policy


def test_a_variable_is_read_when_the_keys_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="VAR holds no key"):
        variable_keys("VAR", STREAM, environ={})
    policy = write(tmp_path / "log", variable_keys("VAR", STREAM, environ={"VAR": KEY.hex()}))
    assert policy.kms_uris() == {"local": "env:VAR?allow_in_production=true"}


def test_a_variable_with_a_name_that_no_uri_has_is_read_all_the_same(tmp_path: Path) -> None:
    keys = variable_keys("my-key", STREAM, environ={"my-key": KEY.hex()})
    assert keys.source.uri is None
    policy = write(tmp_path / "log", keys)
    again = variable_keys("my-key", STREAM, environ={"my-key": KEY.hex()})
    assert Verifier(policy, again.providers).verify(tmp_path / "log", expect_closed=True).valid


def test_a_variable_that_is_taken_away_goes_on_being_used_and_one_that_changes_is_read_again(tmp_path: Path) -> None:
    environ = {"VAR": KEY.hex()}
    keys = variable_keys("VAR", STREAM, environ=environ)
    environ.clear()
    write(tmp_path / "log", keys)
    write(tmp_path / "log", keys)
    environ["VAR"] = OTHER.hex()
    with pytest.raises(KekMismatchError):
        write(tmp_path / "log", variable_keys("VAR", STREAM, environ=environ))


def test_a_file_that_is_gone_or_open_to_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyNotFoundError):
        file_keys(tmp_path / "none", STREAM)
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError):
        file_keys(path, STREAM)
    policy = write(tmp_path / "log", file_keys(path, STREAM, allow_group_read=True))
    assert Verifier(policy).verify(tmp_path / "log", expect_closed=True).valid


def test_a_folder_gives_the_file_of_a_key_id_if_it_has_one(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    for name, key in (("one.key", KEY), ("two.key", OTHER)):
        (folder / name).write_bytes(key)
        (folder / name).chmod(0o600)
    write(tmp_path / "log", file_keys(folder, STREAM, key_id="one"))
    write(tmp_path / "log", given_keys(KEY, STREAM, key_id="one"))
    with pytest.raises(KekMismatchError):
        write(tmp_path / "log", given_keys(OTHER, STREAM, key_id="one"))
    assert file_keys(folder, STREAM, key_id="../keys/one").source.uri == (
        f"file:{folder}?key=..%2Fkeys%2Fone&allow_in_production=true"
    )


def test_a_key_that_is_given_has_32_bytes() -> None:
    with pytest.raises(InvalidInputError):
        given_keys(b"short", STREAM)


def test_production_takes_keys_of_this_machine_that_were_asked_for_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSTEAD_ENV", "production")
    policy = write(tmp_path / "log", given_keys(KEY, STREAM))
    assert policy.keys
    with pytest.raises(ConfigurationError, match="looks like a password"):
        variable_keys("VAR", STREAM, environ={"VAR": "a password of 32 letters, really"})


@pytest.mark.parametrize(
    "keys_of",
    [
        lambda key: variable_keys("VAR", STREAM, algorithm=SignatureAlgorithm.ED25519, environ={"VAR": key.hex()}),
        lambda key: given_keys(key, STREAM, algorithm=SignatureAlgorithm.ED25519),
    ],
)
def test_seeds_sign_checkpoints_that_the_public_key_verifies(
    tmp_path: Path, keys_of: Callable[[bytes], LogKeys]
) -> None:
    policy = write(tmp_path / "log", keys_of(KEY))
    public = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()
    assert [signer.key.material for signer in policy.signers] == [public]
    assert Verifier(TrustPolicy(STREAM, (), policy.signers)).verify(tmp_path / "log", expect_closed=True).valid


def test_a_seed_signer_hides_its_keys_and_trusts_the_older_ones() -> None:
    signer = SeedSigner(STREAM, (KeyMaterial.of(KEY), KeyMaterial.of(OTHER)))
    assert len(signer.keys) == 2
    assert KEY.hex() not in repr(signer)
    signer.close()
    note = signer.sign("text\n")
    signer.keys[0].verify("text\n", note.value)


def test_a_signers_kms_wraps_sessions_or_signs_checkpoints() -> None:
    kms = FakeKMS()
    kms.create_key("audit")
    kms.create_key("sign", purpose=KeyPurpose.SIGN_VERIFY)
    wrapping = KmsSigner(kms.provider("cloud"), "audit", SignerSettings())
    found = signer_keys(wrapping, STREAM, signs_natively=False, uri="fake:audit")
    assert isinstance(found.source, KmsSessions)
    assert (found.source.uri, found.signer) == ("fake:audit", None)
    signing = signer_keys(KmsSigner(kms.provider("cloud"), "sign"), STREAM, signs_natively=True)
    assert isinstance(signing.source, ChainedSessions)
    assert signing.signer is not None
    assert (wrapping.key_id, wrapping.algorithm) == ("audit", None)


def test_a_kms_is_not_asked_to_unwrap_by_who_may_only_write(tmp_path: Path) -> None:
    kms = FakeKMS()
    kms.create_key("audit")
    keys = signer_keys(KmsSigner(kms.provider("cloud"), "audit"), STREAM, signs_natively=False)
    write(tmp_path / "log", keys)
    kms.deny("decrypt")
    write(tmp_path / "log", signer_keys(KmsSigner(kms.provider("cloud"), "audit"), STREAM, signs_natively=False))
    assert kms.calls["decrypt"] == 0


def test_a_log_says_which_session_it_seals_in(tmp_path: Path) -> None:
    with SealedFile(tmp_path / "log", stream=STREAM, kms=FakeKMS(), key_id="audit") as log:
        session = log.session_id
        assert session is not None
        assert session.encode() in (tmp_path / "log").read_bytes()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if log.session_id is None else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_writing_record_by_record_wakes_the_logs_thread_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keystead.ledger.writing.open_log import OpenLog

    woken = 0
    settle = OpenLog._settle

    def counted(log: OpenLog) -> KMSError | None:
        nonlocal woken
        woken += 1
        return settle(log)

    monkeypatch.setattr(OpenLog, "_settle", counted)
    with SealedFile(tmp_path / "log", stream=STREAM, kms=FakeKMS(), key_id="audit") as log:
        for _ in range(500):
            log.append_many([b"1"])
    assert woken < 50


def test_text_holds_keys_or_none() -> None:
    assert keys_in(f"{KEY.hex()},{OTHER.hex()}".encode()) == (KEY, OTHER)
    assert keys_in(b"no key") is None


def test_what_belongs_to_somebody_else_is_left_open() -> None:
    kms = FakeKMS()
    signer = KmsSigner(kms.provider("cloud"), "audit")
    signer_keys(signer, STREAM, signs_natively=False, owns_provider=False).close()
    assert asyncio.run(signer.provider.encrypt(b"x", "audit")).ciphertext
