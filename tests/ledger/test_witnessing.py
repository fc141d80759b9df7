"""A log that has its checkpoints cosigned while it is written: what it asks, and what it makes of the answers."""

from __future__ import annotations

import logging
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, InvalidInputError, InvalidProofError, ProviderConnectionError
from keystead.integrations.logging import SealedHandler
from keystead.integrations.structlog import SealedLoggerFactory
from keystead.ledger import KmsCheckpointSigner, LocalSigner, SealedFile
from keystead.ledger.reading.index_file import Contents
from keystead.ledger.tlog.checkpoint_signers import name_for
from keystead.ledger.tlog.note import Note, NoteKey
from keystead.ledger.witness.server import WitnessServer
from keystead.testing import FakeKMS
from tests.ledger.files import STREAM, killed, opened, payloads, until, verified
from tests.ledger.logs import kinds
from tests.ledger.signer_keys import with_keys
from tests.ledger.witnesses import ED25519, ML_DSA_44, serving

BOTH = (ED25519, ML_DSA_44)
VKEYS = [each.key.key.vkey for each in BOTH]


def log_key(path: Path) -> NoteKey:
    """Return the key that signs a log, made if there is none."""
    return LocalSigner.from_file(f"{path}.key", name_for(STREAM)).key


@pytest.fixture
def server(tmp_path: Path, path: Path) -> Iterator[WitnessServer]:
    with serving(tmp_path / "witness", {STREAM: [log_key(path)]}, BOTH) as made:
        yield made


def witnessed(path: Path, kms: FakeKMS, server: WitnessServer, **options: Any) -> SealedFile:
    return opened(path, kms, witnesses={server.url: VKEYS}, **options)


def away() -> str:
    """Return the URL of a witness that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A witness that takes connections, and never answers; waited for half a second."""
    for name in ("WITNESS_TIMEOUT_S", "CLOSE_TIMEOUT_S"):
        monkeypatch.setattr(f"keystead.ledger.writing.signed_writer.{name}", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def names(note: bytes) -> list[str]:
    return [each.name for each in Note.parse(note).signatures]


def test_each_checkpoint_is_cosigned_by_each_key_of_a_witness(path: Path, kms: FakeKMS, server: WitnessServer) -> None:
    with witnessed(path, kms, server) as log:
        policy = log.trust_policy()
        for number in range(5):
            log.append(str(number).encode())
            assert names(log.checkpoint()) == [STREAM, *[each.key.name for each in BOTH]]
        assert log.unwitnessed == {}
    assert (set(policy.witnesses), policy.quorum) == ({each.key for each in BOTH}, 1)
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.closed, report.vouched) == ([], True, report.size - 1)


def test_checkpoints_that_nobody_asked_for_are_cosigned_too(path: Path, kms: FakeKMS, server: WitnessServer) -> None:
    with witnessed(path, kms, server, checkpoint_records=10, buffer_s=0.01) as log:
        log.append_many([b"1"] * 25)
        until(lambda: ED25519.key.name.encode() in path.read_bytes())


def test_a_log_that_goes_on_proves_that_it_has_only_grown(path: Path, kms: FakeKMS, server: WitnessServer) -> None:
    for number in range(4):
        with witnessed(path, kms, server, compress=True) as log:
            log.append_many([str(number).encode()] * 300)
            log.rotate()
            policy = log.trust_policy()
            assert log.unwitnessed == {}
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.closed, report.files) == ([], True, 5)


def test_every_file_that_has_ended_holds_a_cosigned_checkpoint(path: Path, kms: FakeKMS, server: WitnessServer) -> None:
    with witnessed(path, kms, server) as log:
        policy = log.trust_policy()
        for number in range(3):
            log.append(str(number).encode())
            report = verified(log.rotate(), kms, policy)
            assert report.errors == []
            assert report.vouched > 0


def test_the_index_that_proofs_are_made_by_is_never_believed(
    path: Path, kms: FakeKMS, server: WitnessServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with witnessed(path, kms, server) as log:
        log.append_many([b"1"] * 1000)
        log.checkpoint()
        log.append_many([b"2"] * 1000)
        log.checkpoint()
        index = path.with_name("app.log.index")
        content = bytearray(index.read_bytes())
        for at in range(len(content) - 200, len(content)):
            content[at] ^= 1
        index.write_bytes(content)
        monkeypatch.setattr(Contents, "save", lambda contents, log, size: None)
        log.append(b"3")
        assert names(log.checkpoint())[1:] == [each.key.name for each in BOTH]


def test_a_witness_that_is_away_holds_nothing_up_and_is_asked_again(
    path: Path, tmp_path: Path, kms: FakeKMS, caplog: pytest.LogCaptureFixture
) -> None:
    url = away()
    with opened(path, kms, witnesses={url: VKEYS}) as log, caplog.at_level(logging.INFO, "keystead.ledger"):
        policy = log.trust_policy()
        for number in range(3):
            log.append(str(number).encode())
            assert names(log.checkpoint()) == [STREAM]
        assert isinstance(log.unwitnessed[url], ProviderConnectionError)
        assert [each.levelname for each in caplog.records] == ["WARNING"]
        assert "cosigned" in kinds_told(verified(path, kms, policy))
        with serving(tmp_path / "witness", {STREAM: [log_key(path)]}, BOTH, port=int(url.rpartition(":")[2])):
            log.append(b"3")
            assert names(log.checkpoint())[1:] == [each.key.name for each in BOTH]
            assert log.unwitnessed == {}
            assert verified(path, kms, policy).errors == []
        log.append(b"4")
    # Closed while the witness was away again: what it has cosigned is vouched for, and the end is not.
    report = verified(path, kms, policy)
    assert (report.errors, report.closed, payloads(path)) == ([], False, [0, 1, 2, 3, 4])
    assert kinds(verified(path, kms, policy, expect_closed=True)) == ["truncated"]


def kinds_told(report: Any) -> str:
    return " ".join(error.message for error in report.errors)


def test_records_are_written_while_a_witness_never_answers(path: Path, kms: FakeKMS, silent: str) -> None:
    log = opened(path, kms, witnesses={silent: VKEYS}, max_bytes=8192, buffer_s=0.01, epoch_s=1)
    policy = log.trust_policy()
    asking = threading.Thread(target=log.checkpoint)
    asking.start()
    until(lambda: b'"k":"cut"' in path.read_bytes())
    log.append(b'"while it is asked"')
    until(lambda: b"while it is asked" in path.read_bytes())
    log.flush()
    asking.join()
    log.append_many([b'"%b"' % (b"x" * 1000)] * 10)
    until(lambda: path.with_name("app.log.000001").exists())
    log.append(b'"in the next file"')
    log.close()
    assert kinds(verified(path, kms, policy)) == ["checkpoint"]
    assert verified(path, kms, _without_quorum(policy), expect_closed=True).errors == []


def _without_quorum(policy: Any) -> Any:
    import dataclasses

    return dataclasses.replace(policy, quorum=0)


def cloned(path: Path, folder: Path) -> Path:
    """Return a copy of a log with its signing key: who has both can write on as the log itself."""
    folder.mkdir()
    for each in path.parent.glob("app.log*"):
        if each.suffix != ".lock":
            shutil.copy(each, folder / each.name)
    return folder / path.name


def test_of_two_logs_with_one_history_a_witness_cosigns_one_and_the_other_is_told_loudly(
    path: Path, tmp_path: Path, kms: FakeKMS, server: WitnessServer, caplog: pytest.LogCaptureFixture
) -> None:
    with witnessed(path, kms, server) as log:
        log.append(b'"both"')
        log.checkpoint()
        other_path = cloned(path, tmp_path / "other")
        log.append(b'"the one"')
        log.checkpoint()
    with witnessed(other_path, kms, server) as other:
        other.append_many([b'"the other"'] * 50)
        with pytest.raises(InvalidProofError, match="another history"):
            other.checkpoint()
        assert any(each.levelname == "ERROR" and "refuses" in each.message for each in caplog.records)
        # It is written all the same.
        other.append(b'"and on"')
        other.flush()
    assert payloads(other_path)[-1] == "and on"


def test_two_readers_who_were_shown_different_logs_find_out(
    path: Path, tmp_path: Path, kms: FakeKMS, server: WitnessServer
) -> None:
    with witnessed(path, kms, server) as log:
        policy = log.trust_policy()
        log.append(b'"paid 10"')
        seen_by_one = log.checkpoint()
    other_path = tmp_path / "other" / "app.log"
    other_path.parent.mkdir()
    shutil.copy(f"{path}.key", f"{other_path}.key")
    with opened(other_path, kms, witnesses={server.url: VKEYS}) as other:
        other.append(b'"paid 99"')
        with pytest.raises(InvalidProofError):
            other.checkpoint()
    # Each log is sound in itself, and sealed and signed by the keys of the policy: only the witness tells.
    assert verified(other_path, kms, _without_quorum(policy), expect_closed=True).valid
    assert verified(path, kms, policy, expect_closed=True).valid
    assert kinds(verified(other_path, kms, policy)) == ["checkpoint"]
    # And where the one reader hands the other what it has kept, that tells as well.
    assert "rolled_back" in kinds(verified(other_path, kms, policy, since=seen_by_one))


def test_a_log_put_back_with_all_its_state_is_refused(
    path: Path, tmp_path: Path, kms: FakeKMS, server: WitnessServer
) -> None:
    with witnessed(path, kms, server) as log:
        log.append(b"1")
    earlier = cloned(path, tmp_path / "earlier")
    with witnessed(path, kms, server) as log:
        policy = log.trust_policy()
        log.append_many([b"2"] * 20)
        kept = log.checkpoint()
    for each in earlier.parent.iterdir():
        shutil.copy(each, path.parent / each.name)
    with witnessed(path, kms, server) as log, pytest.raises(InvalidProofError, match="has seen"):
        log.checkpoint()
    assert kinds(verified(path, kms, policy, since=kept)) == ["rolled_back"]


def test_a_log_whose_files_were_changed_beside_its_writer_is_told_loudly(
    path: Path, kms: FakeKMS, server: WitnessServer
) -> None:
    with witnessed(path, kms, server) as log:
        log.append(b'"as it was"')
        log.checkpoint()
        path.write_bytes(path.read_bytes().replace(b"as it was", b"as it is!"))
        log.append(b"2")
        with pytest.raises(InvalidProofError):
            log.checkpoint()


def test_files_are_removed_once_every_witness_has_seen_what_follows(
    path: Path, tmp_path: Path, kms: FakeKMS, server: WitnessServer
) -> None:
    with witnessed(path, kms, server) as log:
        policy = log.trust_policy()
        log.append_many([b"1"] * 10)
        log.rotate()
        log.retire([1], "kept for a year")
        log.append(b"2")
        assert names(log.checkpoint())[1:] == [each.key.name for each in BOTH]
        log.rotate()
    assert verified(path, kms, policy, expect_closed=True).errors == []
    with opened(path, kms, witnesses={away(): VKEYS}) as log:
        with pytest.raises(ProviderConnectionError):
            log.retire([2], "kept for a year")
        assert path.with_name("app.log.000002").exists()
    assert not path.with_name("app.log.000001").exists()


def test_a_witness_that_does_not_know_the_log_is_told_of_once(
    path: Path, tmp_path: Path, kms: FakeKMS, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving(tmp_path / "witness", {"example.org/other": [log_key(path)]}, BOTH) as server,
        witnessed(path, kms, server) as log,
    ):
        for number in range(3):
            log.append(str(number).encode())
            log.checkpoint()
        told = [each.message for each in caplog.records if each.name == "keystead.ledger"]
        assert len(told) == 1
        assert "does not know this log" in told[0]


def test_checkpoints_of_a_kms_are_cosigned(path: Path, tmp_path: Path) -> None:
    kms = with_keys(FakeKMS())
    signer = KmsCheckpointSigner(kms, "signer", STREAM)
    with (
        serving(tmp_path / "witness", {STREAM: signer.keys}, BOTH) as server,
        SealedFile(path, stream=STREAM, kms=None, signer=signer, witnesses={server.url: VKEYS}) as log,
    ):
        policy = log.trust_policy()
        log.append(b"1")
        assert len(names(log.checkpoint())) == 3
    assert verified(path, kms, policy, expect_closed=True).closed


def test_a_killed_writer_leaves_nothing_that_a_witness_refuses(path: Path, kms: FakeKMS, server: WitnessServer) -> None:
    for number in range(4):
        log = witnessed(path, kms, server)
        log.append(str(number).encode())
        log.checkpoint()
        log.append(b'"not yet cosigned"')
        log.flush()
        killed(log)
        with path.open("ab") as file:
            file.write(b'{"n":7,"half a')
    with witnessed(path, kms, server) as log:
        log.checkpoint()
        assert log.unwitnessed == {}
        policy = log.trust_policy()
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_handlers_have_their_log_cosigned(path: Path, kms: FakeKMS, server: WitnessServer) -> None:
    options: dict[str, Any] = {
        "stream": STREAM,
        "kms": kms,
        "key_id": "audit",
        "witnesses": {server.url: VKEYS},
        "quorum": 1,
    }
    handler = SealedHandler(path, **options)
    handler.emit(logging.makeLogRecord({"name": "app", "msg": "told", "levelno": logging.ERROR}))
    policy = handler.log.trust_policy()
    handler.close()
    factory = SealedLoggerFactory(path, **options)
    factory().error("told")
    factory.close()
    assert verified(path, kms, policy, expect_closed=True).errors == []


@pytest.mark.parametrize(
    ("witnesses", "quorum", "error"),
    [
        ({"http://u:p@witness.example.org": VKEYS}, 1, ConfigurationError),
        ({"witness.example.org": VKEYS}, 1, ConfigurationError),
        ({"http://witness.example.org": []}, 1, ConfigurationError),
        ({"http://witness.example.org": "no key"}, 1, InvalidInputError),
        ({"http://witness.example.org": VKEYS}, 2, ConfigurationError),
        ({"http://witness.example.org": VKEYS}, -1, ConfigurationError),
        ({}, 2, ConfigurationError),
    ],
    ids=range(7),
)
def test_witnesses_that_cannot_be_are_refused(
    path: Path, kms: FakeKMS, witnesses: dict[str, Any], quorum: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        opened(path, kms, witnesses=witnesses, quorum=quorum)
    assert not path.exists()


def test_a_log_without_witnesses_asks_its_readers_for_none(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        assert (log.trust_policy().witnesses, log.trust_policy().quorum) == ((), 0)
