"""Under which KEK a log goes on: the one that it was sealed under, unless whoever opens it says otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keystead.errors import KekMismatchError, KeyNotFoundError, ProviderConnectionError
from keystead.ledger import SealedFile, TrustPolicy, Verifier
from keystead.ledger.format.session_source import ChainedSessions, KmsSessions
from keystead.ledger.writing.keys import given_keys
from keystead.ports import KmsProvider
from keystead.providers.guard import GuardedProvider
from keystead.providers.local.kek_file import add_version, create_kek_file
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.testing import FakeKMS

STREAM = "example.org/app"


def local(number: int = 0) -> LocalKMSProvider:
    return LocalKMSProvider(LocalKMSConfig(master_key=bytes([number]) * 32))


def sealed(path: Path, kms: KmsProvider | None, *payloads: bytes, stream: str = STREAM) -> TrustPolicy:
    with SealedFile(path, stream=stream, kms=kms, key_id=None if kms is None else "audit") as log:
        for payload in payloads or (b"1",):
            log.append(payload)
        return log.trust_policy()


def asked(path: Path, kms: KmsProvider) -> bool:
    """Open the log by a source that asks its KMS whatever that is; return whether it has opened the last session."""
    source = KmsSessions(kms, "audit", asks_kms=True)
    SealedFile(path, stream=STREAM, kms=source).close()
    return source.has_opened


def test_another_kek_of_this_machine_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    for name in ("one", "other"):
        create_kek_file(tmp_path / name)
    SealedFile(path, stream=STREAM, kms=f"file:{tmp_path / 'one'}").close()
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(KekMismatchError) as caught:
        SealedFile(path, stream=STREAM, kms=f"file:{tmp_path / 'other'}")
    for told in (str(path), "file:", "/other", "local:default, version 1", "keep it behind", "on_kek_mismatch='go_on'"):
        assert told in str(caught.value)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
    SealedFile(path, stream=STREAM, kms=f"file:{tmp_path / 'one'}").close()


def test_a_kek_that_was_replaced_by_a_next_version_goes_on_and_the_whole_log_verifies(tmp_path: Path) -> None:
    path, kek = tmp_path / "app.log", tmp_path / "kek"
    create_kek_file(kek)
    SealedFile(path, stream=STREAM, kms=f"file:{kek}").close()
    add_version(str(kek), random=os.urandom, now=datetime.now(UTC))
    with SealedFile(path, stream=STREAM, kms=f"file:{kek}") as log:
        log.append(b"1")
        policy = log.trust_policy()
    report = Verifier(policy).verify(path, expect_closed=True)
    assert (report.valid, report.sessions) == (True, 2)


def test_a_kek_file_that_is_gone_is_not_made_anew_for_a_log_that_was_sealed_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    SealedFile("app.log", stream=STREAM, kms="local:").close()
    (tmp_path / "keystead.kek").unlink()
    with pytest.raises(KekMismatchError):
        SealedFile("app.log", stream=STREAM, kms="local:")
    assert not (tmp_path / "keystead.kek").exists()


def test_who_has_lost_a_kek_may_go_on_under_another_and_checkpoints_vouch_for_what_was(path: Path) -> None:
    sealed(path, local(1))
    with SealedFile(path, stream=STREAM, kms=local(2), key_id="audit", on_kek_mismatch="go_on") as log:
        log.append(b"2")
        policy = log.trust_policy()
    assert not Verifier(policy, {"local": local(2)}).verify(path, expect_closed=True).valid
    by_checkpoints = TrustPolicy(STREAM, (), policy.signers)
    assert Verifier(by_checkpoints).verify(path, expect_closed=True).valid


def test_a_kms_that_is_away_does_not_make_a_mismatch_a_log_without_a_key(path: Path) -> None:
    sealed(path, local(1))
    with pytest.raises(KekMismatchError):
        SealedFile(path, stream=STREAM, kms=local(2), key_id="audit", on_kms_failure="chain")


def test_the_last_session_counts_and_not_the_first(path: Path) -> None:
    sealed(path, local(1))
    with SealedFile(path, stream=STREAM, kms=local(2), key_id="audit", on_kek_mismatch="go_on") as log:
        # As the application may have logged: it is no session for that.
        log.append_many([b'{"n":9,"k":"session"}', b'{"k":"session"}'])
    sealed(path, local(2))
    with pytest.raises(KekMismatchError):
        sealed(path, local(1))


def test_sessions_without_a_key_say_nothing_of_the_one_before_them(path: Path) -> None:
    sealed(path, local(1))
    sealed(path, None)
    assert asked(path, local(1))
    with pytest.raises(KekMismatchError):
        sealed(path, local(2))


def test_the_last_file_that_ended_stands_for_a_log_whose_next_one_has_not_begun(path: Path) -> None:
    with SealedFile(path, stream=STREAM, kms=local(1), key_id="audit") as log:
        log.append(b"1")
        ended = log.rotate()
    path.unlink()
    assert ended.exists()
    with pytest.raises(KekMismatchError):
        sealed(path, local(2))
    assert asked(path, local(1))


@pytest.mark.parametrize("garbage", [b'{"n":4,"t":1,"k":"session","d":{"id"\n', b"half a line"])
def test_a_session_that_a_crash_left_half_is_none(path: Path, garbage: bytes) -> None:
    sealed(path, local(1))
    with path.open("ab") as file:
        file.write(garbage)
    assert asked(path, local(1))


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'"key":"ks2.', b'"key":"ks9.'),
        lambda line: line.replace(b'"algorithm":"HMAC-SHA256"', b'"algorithm":"HMAC"'),
    ],
)
def test_a_session_that_somebody_changed_is_for_the_reader_to_find(
    path: Path, change: Callable[[bytes], bytes]
) -> None:
    policy = sealed(path, local(1))
    sealed(path, local(1))
    content = path.read_bytes()
    at = content.index(b'"k":"session"')
    changed = content[:at] + change(content[at:])
    assert changed != content
    path.write_bytes(changed)
    sealed(path, local(1))
    assert not Verifier(policy, {"local": local(1)}).verify(path).valid


def test_a_kms_is_not_asked_to_unwrap_by_who_may_only_write(path: Path) -> None:
    kms = FakeKMS()
    for _ in range(2):
        sealed(path, kms)
    assert kms.calls["decrypt"] == 0


def test_a_kms_that_may_be_asked_is_known_by_what_it_opens_and_not_by_its_name(path: Path) -> None:
    kms, other = FakeKMS(), FakeKMS()
    sealed(path, kms)
    assert asked(path, kms)
    other.create_key("audit")
    with pytest.raises(KekMismatchError, match="than the one at hand: fake:audit"):
        asked(path, other)


def test_a_kms_that_does_not_tell_holds_nothing_up(path: Path) -> None:
    kms = FakeKMS()
    sealed(path, kms)
    for failure in (ProviderConnectionError("the network is down"), KeyNotFoundError("another key by now")):
        kms.fail_next(1, failure)
        assert not asked(path, kms)
    kms.deny("decrypt")
    assert not asked(path, kms)


def test_a_kek_is_known_by_the_name_that_its_instance_has(path: Path) -> None:
    sealed(path, GuardedProvider(local(1), "newer"))
    assert asked(path, GuardedProvider(local(1), "newer"))
    with pytest.raises(KekMismatchError):
        sealed(path, GuardedProvider(local(2), "newer"))


def test_a_log_goes_on_under_another_kms_and_without_one(path: Path) -> None:
    sealed(path, local(1))
    assert not asked(path, FakeKMS())
    SealedFile(path, stream=STREAM, kms=ChainedSessions()).close()


def test_a_new_log_has_no_kek_to_ask_for(path: Path) -> None:
    keys = given_keys(bytes(32), STREAM)
    SealedFile(path, stream=STREAM, kms=keys.source).close()
    assert isinstance(keys.source, KmsSessions)
    assert not keys.source.has_opened
