"""What a witness cosigns, and what it never does."""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from keystead.crypto.merkle import consistency_proof, leaf_hash, root_of
from keystead.errors import ConfigurationError
from keystead.ledger.tlog.checkpoint import Checkpoint, hash_lines, verify_checkpoint
from keystead.ledger.tlog.cosignature import WitnessSigner
from keystead.ledger.tlog.note import Note, NoteKey, NoteKeyType, NoteSignature, parse_signatures
from keystead.ledger.witness.keys import witness_signers
from keystead.ledger.witness.witness import FolderState, Witness, WitnessAnswer
from tests.ledger.vectors import read

DIALOGUE = read("torchwood/add-checkpoint.json")
SUMDB = read("torchwood/sumdb.json")
LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG_KEY = NoteKey.of("log.example.org", NoteKeyType.ED25519, LOG.public_key().public_bytes_raw())
LEAVES = [leaf_hash(str(number).encode()) for number in range(64)]
NOW = 1_900_000_000


@pytest.fixture
def signers() -> list[WitnessSigner]:
    return [
        WitnessSigner("witness.example.org", Ed25519PrivateKey.from_private_bytes(bytes(32))),
        WitnessSigner("witness.example.org", MLDSA44PrivateKey.from_seed_bytes(bytes(32))),
    ]


@pytest.fixture
def witness(signers: list[WitnessSigner], tmp_path: Path) -> Witness:
    return Witness(signers, {"log.example.org": [LOG_KEY]}, FolderState(tmp_path / "witness"), lambda: NOW)


def checkpoint(size: int, leaves: list[bytes] = LEAVES) -> Checkpoint:
    return Checkpoint("log.example.org", size, root_of(leaves[:size]))


def request(old: int, new: Checkpoint, leaves: list[bytes] = LEAVES, proof: list[bytes] | None = None) -> bytes:
    text = new.text()
    note = Note(text, (NoteSignature(LOG_KEY.name, LOG_KEY.key_id, LOG.sign(text.encode())),)).render()
    if proof is None:
        proof = [] if old == 0 else consistency_proof(old, new.size, lambda level, at: subtree(leaves, level, at))
    return f"old {old}\n{hash_lines(proof)}\n".encode() + note


def subtree(leaves: list[bytes], level: int, number: int) -> bytes:
    return root_of(leaves[number << level : (number + 1) << level])


def add(witness: Witness, old: int, size: int) -> WitnessAnswer:
    return witness.add_checkpoint(request(old, checkpoint(size)))


def test_the_dialogue_of_another_implementation(tmp_path: Path) -> None:
    log = DIALOGUE["log"]
    key = NoteKey.of(log["origin"], NoteKeyType.ED25519, bytes.fromhex(log["ed25519PublicKeyHex"]))
    seed = bytes.fromhex(DIALOGUE["witnessEd25519"]["privateSeedAndPublicHex"])[:32]
    signer = WitnessSigner(DIALOGUE["witnessName"], Ed25519PrivateKey.from_private_bytes(seed))
    witness = Witness([signer], {log["origin"]: [key]}, FolderState(tmp_path), lambda: NOW)
    for exchange in DIALOGUE["exchanges"]:
        answer = witness.add_checkpoint(exchange["body"].encode())
        # A log that is not known was 403 there; by the specification it is 404.
        is_unknown = exchange["bodyText"] == "unknown log"
        assert answer.status == (404 if is_unknown else exchange["status"])
        if exchange["bodyTest"] == "contains":
            assert exchange["bodyText"] in answer.body
        else:
            assert answer.body == exchange["bodyText"]


def test_the_checkpoint_of_a_large_real_log(tmp_path: Path, signers: list[WitnessSigner]) -> None:
    key = NoteKey.parse(SUMDB["verifierKey"])
    witness = Witness(signers, {SUMDB["origin"]: [key]}, FolderState(tmp_path), lambda: NOW)
    assert [witness.add_checkpoint(each["body"].encode()).status for each in SUMDB["exchanges"]] == [200]


def test_each_of_its_keys_cosigns(witness: Witness, signers: list[WitnessSigner]) -> None:
    answer = add(witness, 0, 5)
    text = checkpoint(5).text()
    note = Note(text, tuple(parse_signatures(answer.body)))
    assert answer.status == 200
    assert set(verify_checkpoint(note.render(), [each.key for each in signers]).signed_by) == {
        each.key for each in signers
    }


def test_a_log_that_grows_is_cosigned_again_and_again(witness: Witness) -> None:
    sizes = [0, 1, 5, 5, 8, 64]
    assert [add(witness, old, new).status for old, new in pairwise(sizes)] == [200] * 5


def test_a_request_from_another_size_is_told_the_size(witness: Witness) -> None:
    add(witness, 0, 5)
    answer = add(witness, 3, 8)
    assert (answer.status, answer.body, answer.content_type) == (409, "5\n", "text/x.tlog.size")


def test_a_log_that_was_cut_is_never_cosigned(witness: Witness) -> None:
    add(witness, 0, 8)
    for old in (0, 5, 8):
        assert witness.add_checkpoint(request(old, checkpoint(5), proof=[])).status in (400, 409)


def test_a_log_that_was_rewritten_is_never_cosigned(witness: Witness) -> None:
    add(witness, 0, 8)
    other = [leaf_hash(b"rewritten"), *LEAVES[1:]]
    assert witness.add_checkpoint(request(8, checkpoint(20, other), other)).status == 422
    assert witness.add_checkpoint(request(8, checkpoint(8, other), proof=[])).status == 422


def test_two_views_of_one_log_are_not_both_cosigned(witness: Witness) -> None:
    other = [*LEAVES[:5], leaf_hash(b"split"), *LEAVES[6:]]
    assert add(witness, 0, 8).status == 200
    assert witness.add_checkpoint(request(0, checkpoint(8, other))).status == 409


def test_a_proof_from_nothing_has_to_be_empty(witness: Witness) -> None:
    assert witness.add_checkpoint(request(0, checkpoint(5), proof=[LEAVES[0]])).status == 422


@pytest.mark.parametrize(
    "body",
    [b"", b"old 0\n", b"old x\n\n", b"old 01\n\n", b"\xff", b"old 0\n\nno note", b"x" * ((1 << 20) + 1)],
    ids=range(7),
)
def test_malformed_requests_are_refused(witness: Witness, body: bytes) -> None:
    assert witness.add_checkpoint(body).status == 400


def test_more_hashes_than_any_tree_is_high_are_refused(witness: Witness) -> None:
    assert witness.add_checkpoint(request(0, checkpoint(5), proof=[bytes(32)] * 64)).status == 400


def test_what_it_saw_outlives_the_process(witness: Witness, signers: list[WitnessSigner], tmp_path: Path) -> None:
    add(witness, 0, 8)
    again = Witness(signers, {"log.example.org": [LOG_KEY]}, FolderState(tmp_path / "witness"), lambda: NOW)
    assert add(again, 0, 5).status == 409
    assert add(again, 8, 9).status == 200


def test_of_requests_at_once_none_sets_it_back(witness: Witness) -> None:
    add(witness, 0, 1)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda size=size: answers.append(add(witness, 1, size).status)) for size in range(2, 34)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, *[409] * 31]


def test_damage_to_its_memory_is_an_error_and_not_a_fresh_start(witness: Witness, tmp_path: Path) -> None:
    add(witness, 0, 8)
    (kept,) = [path for path in (tmp_path / "witness").iterdir() if not path.suffix]
    kept.write_text("garbage")
    assert add(witness, 0, 1).status == 503


def test_keys_do_not_show(signers: list[WitnessSigner]) -> None:
    assert "hidden" in repr(signers[0])


def test_an_empty_log_has_the_root_of_nothing(witness: Witness) -> None:
    forged = Checkpoint("log.example.org", 0, bytes(32))
    assert witness.add_checkpoint(request(0, forged, proof=[])).status == 422
    assert witness.add_checkpoint(request(0, checkpoint(0), proof=[])).status == 200
    assert add(witness, 0, 5).status == 200


def test_whoever_watches_the_log_gets_what_was_cosigned_last(witness: Witness, signers: list[WitnessSigner]) -> None:
    name = sha256(b"log.example.org").hexdigest()
    assert witness.checkpoint(name).status == 404
    add(witness, 0, 5)
    add(witness, 5, 8)
    answer = witness.checkpoint(name)
    signed = verify_checkpoint(answer.body.encode(), [LOG_KEY, *(each.key for each in signers)])
    assert (answer.status, signed.checkpoint, len(signed.signed_by)) == (200, checkpoint(8), 3)
    assert witness.checkpoint("0" * 64).status == 404


def test_signatures_that_it_does_not_know_are_not_kept(witness: Witness) -> None:
    text = checkpoint(5).text()
    stranger = NoteSignature("stranger.example.org", bytes(4), bytes(64))
    note = Note(text, (stranger, NoteSignature(LOG_KEY.name, LOG_KEY.key_id, LOG.sign(text.encode()))))
    assert witness.add_checkpoint(b"old 0\n\n" + note.render()).status == 200
    assert "stranger" not in witness.checkpoint(sha256(b"log.example.org").hexdigest()).body


def test_what_a_witness_remembers_has_its_name_on_disk_before_it_cosigns(
    witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noted(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    assert add(witness, 0, 5).status == 200
    assert {str(tmp_path), str(tmp_path / "witness")} <= set(synced)


def test_a_witness_keeps_its_name_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        witness_signers(tmp_path, "witness.example.org")
    monkeypatch.undo()
    assert witness_signers(tmp_path, "witness.example.org")[0].key.name == "witness.example.org"
    assert (tmp_path / "name").read_text() == "witness.example.org\n"
