"""Checkpoints, cosignatures and proof bundles, against what others publish."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keystead.crypto.merkle import consistency_proof, inclusion_proof, leaf_hash, root_of, verify_consistency
from keystead.errors import InvalidInputError, InvalidProofError, InvalidSignatureError
from keystead.ledger.tlog.checkpoint import Checkpoint, verify_checkpoint
from keystead.ledger.tlog.cosignature import WitnessKey, WitnessSigner, time_of
from keystead.ledger.tlog.note import Note, NoteKey, NoteKeyType, NoteSignature
from keystead.ledger.tlog.proof import ProofBundle
from tests.ledger.vectors import read, unbase64

TEXTS = read("transparency-dev-formats/checkpoint-text.json")
PROOFS = read("transparency-dev-formats/tlog-proof-text.json")
TESSERA = read("tessera/log.json")
SUNLIGHT = read("sunlight/cosigned.json")
SIGSTORE = read("sigstore-conformance/checkpoints.json")
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eit", "nain", "ten"]
WORDS += ["ileven", "twelf", "threeten", "fourten", "fivten"]
LEAVES = [leaf_hash(word.encode()) for word in WORDS]
LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG_KEY = NoteKey.of("log.example.org", NoteKeyType.ED25519, LOG.public_key().public_bytes_raw())
CHECKPOINT = Checkpoint("log.example.org", len(LEAVES), root_of(LEAVES))


def subtree(level: int, number: int) -> bytes:
    return root_of(LEAVES[number << level : (number + 1) << level])


def signed_by_log(checkpoint: Checkpoint = CHECKPOINT, *more: NoteSignature) -> bytes:
    text = checkpoint.text()
    return Note(text, (NoteSignature(LOG_KEY.name, LOG_KEY.key_id, LOG.sign(text.encode())), *more)).render()


def witnesses() -> list[WitnessSigner]:
    return [
        WitnessSigner("witness.example.org/ed", Ed25519PrivateKey.from_private_bytes(bytes(32))),
        WitnessSigner("witness.example.org/ml", MLDSA44PrivateKey.from_seed_bytes(bytes(32))),
    ]


@pytest.mark.parametrize("case", [case for case in TEXTS if len(case.get("rootHashHex", "")) == 64 or case["wantErr"]])
def test_texts_of_checkpoints_as_published(case: dict[str, Any]) -> None:
    if case["wantErr"]:
        with pytest.raises(InvalidSignatureError):
            Checkpoint.parse(case["text"])
    else:
        assert Checkpoint.parse(case["text"]).text() == case["text"]


@pytest.mark.parametrize("text", TESSERA["checkpoints"].values())
def test_checkpoints_of_a_log_of_another_implementation(text: str) -> None:
    key = NoteKey.parse(TESSERA["verifierKey"])
    found = verify_checkpoint(text.encode(), [key]).checkpoint
    assert found.root == root_of(LEAVES[: found.size])


@pytest.mark.parametrize("case", SUNLIGHT, ids=lambda case: case["desc"])
def test_cosigned_checkpoints_of_another_implementation(case: dict[str, Any]) -> None:
    keys = [WitnessKey.parse(vkey) for vkey in case["verifierKeys"]]
    signed = verify_checkpoint(case["checkpoint"].encode(), keys)
    assert set(signed.signed_by) == set(keys)
    assert time_of(next(each.value for each in signed.note.signatures if each.name == keys[0].name)) == 1767139200


@pytest.mark.parametrize("case", SIGSTORE["cases"], ids=lambda case: case["name"])
def test_checkpoints_of_rekor(case: dict[str, Any]) -> None:
    ((name, published),) = SIGSTORE["logKeys"].items()
    public_key = load_der_public_key(unbase64(published["spkiDerBase64"]))
    assert isinstance(public_key, Ed25519PublicKey)
    # This log's key id is the beginning of its log id.
    key = NoteKey(name, NoteKeyType.ED25519, public_key.public_bytes_raw(), unbase64(published["logIdBase64"])[:4])

    def verify() -> None:
        hashes = tuple(unbase64(each) for each in case["hashes"])
        bundle = ProofBundle(int(case["logIndex"]), hashes, case["checkpoint"].encode())
        signed = bundle.verify(unbase64(case["canonicalizedBodyBase64"]), [key], origin=name)
        assert (signed.checkpoint.size, signed.checkpoint.root) == (case["treeSize"], unbase64(case["rootHash"]))

    if case["expect"] == "valid":
        verify()
    else:
        with pytest.raises(InvalidSignatureError):
            verify()


@pytest.mark.parametrize("case", PROOFS["marshal"], ids=lambda case: case["desc"])
def test_texts_of_proofs_as_published(case: dict[str, Any]) -> None:
    parsed = ProofBundle.parse(case["text"].encode())
    extra = case["extra"]
    assert parsed.render() == case["text"].encode()
    assert (parsed.index, [base64.b64encode(each).decode() for each in parsed.hashes]) == (
        case["index"],
        case["hashes"],
    )
    assert (parsed.extra is None) is (extra is None)


@pytest.mark.parametrize("case", PROOFS["mustNotParse"], ids=lambda case: case["desc"])
def test_proofs_that_must_not_parse(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidProofError):
        ProofBundle.parse(case["text"].encode())


def test_the_published_counts() -> None:
    assert (len(TEXTS), len(TESSERA["checkpoints"]), len(SUNLIGHT), len(SIGSTORE["cases"])) == (12, 17, 3, 11)
    assert (len(PROOFS["marshal"]), len(PROOFS["mustNotParse"])) == (3, 8)


@pytest.mark.parametrize("number", range(2))
def test_a_witness_vouches_for_a_checkpoint_at_a_time(number: int) -> None:
    witness = witnesses()[number]
    content = signed_by_log(CHECKPOINT, witness.cosign(CHECKPOINT.text(), 1_900_000_000))
    again = WitnessKey.parse(witness.key.key.vkey)
    assert verify_checkpoint(content, [LOG_KEY, again]).signed_by == (LOG_KEY, again)


@pytest.mark.parametrize("number", range(2))
def test_a_cosignature_is_of_one_checkpoint_time_and_witness(number: int) -> None:
    witness, text = witnesses()[number], CHECKPOINT.text()
    value = witness.cosign(text, 1_900_000_000).value
    witness.key.verify(text, value)
    other = Checkpoint(CHECKPOINT.origin, CHECKPOINT.size + 1, CHECKPOINT.root).text()
    for altered_text, altered in ((other, value), (text, bytes(8) + value[8:]), (text, value[:-1]), (text, value[:8])):
        with pytest.raises(InvalidSignatureError):
            witness.key.verify(altered_text, altered)


def test_extensions_are_signed_by_ed25519_only() -> None:
    ed, ml = witnesses()
    plain, extended = CHECKPOINT, Checkpoint(CHECKPOINT.origin, CHECKPOINT.size, CHECKPOINT.root, ("more",))
    ml.key.verify(extended.text(), ml.cosign(plain.text(), 1).value)
    with pytest.raises(InvalidSignatureError):
        ed.key.verify(extended.text(), ed.cosign(plain.text(), 1).value)


def test_a_time_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        witnesses()[0].cosign(CHECKPOINT.text(), -1)
    with pytest.raises(InvalidSignatureError):
        time_of(b"\xff" * 72)


def test_a_key_for_notes_is_no_witnesss() -> None:
    with pytest.raises(InvalidInputError):
        WitnessKey(LOG_KEY)


def test_a_bundle_proves_each_record_and_no_other() -> None:
    content = signed_by_log()
    for index, word in enumerate(WORDS):
        bundle = ProofBundle(index, tuple(inclusion_proof(index, len(LEAVES), subtree)), content)
        again = ProofBundle.parse(bundle.render())
        again.verify(word.encode(), [LOG_KEY], origin="log.example.org")
        with pytest.raises(InvalidProofError):
            again.verify(b"another", [LOG_KEY])
        with pytest.raises(InvalidSignatureError):
            again.verify(word.encode(), [LOG_KEY], origin="other.example.org")


def test_a_bundle_may_have_to_be_witnessed() -> None:
    ed, ml = witnesses()
    content = signed_by_log(CHECKPOINT, ed.cosign(CHECKPOINT.text(), 1_900_000_000))
    bundle = ProofBundle(3, tuple(inclusion_proof(3, len(LEAVES), subtree)), content, extra=b"\x00\x01")
    keys = [ed.key, ml.key]
    bundle.verify(b"four", [LOG_KEY], witnesses=keys, quorum=1)
    with pytest.raises(InvalidSignatureError):
        bundle.verify(b"four", [LOG_KEY], witnesses=keys, quorum=2)
    with pytest.raises(InvalidInputError):
        bundle.verify(b"four", [LOG_KEY], witnesses=keys, quorum=3)


def test_a_witness_alone_does_not_vouch_for_a_log() -> None:
    ed, _ = witnesses()
    content = Note(CHECKPOINT.text(), (ed.cosign(CHECKPOINT.text(), 1),)).render()
    bundle = ProofBundle(3, tuple(inclusion_proof(3, len(LEAVES), subtree)), content)
    with pytest.raises(InvalidSignatureError):
        bundle.verify(b"four", [LOG_KEY], witnesses=[ed.key], quorum=1)


def test_growth_between_checkpoints_of_another_implementation_is_proved() -> None:
    key = NoteKey.parse(TESSERA["verifierKey"])
    found = [verify_checkpoint(text.encode(), [key]).checkpoint for text in TESSERA["checkpoints"].values()]
    for old in found:
        for new in found:
            if 0 < old.size <= new.size:
                proof = consistency_proof(old.size, new.size, subtree)
                verify_consistency(old.size, new.size, old.root, new.root, proof)


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 0, bytes(32), ()),
        ("a\nb", 0, bytes(32), ()),
        ("a", -1, bytes(32), ()),
        ("a", 2**63, bytes(32), ()),
        ("a", 0, b"", ()),
        ("a", 0, bytes(32), ("",)),
        ("a", 0, bytes(32), ("b\nc",)),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_refused(
    origin: str, size: int, root: bytes, extensions: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInputError):
        Checkpoint(origin, size, root, extensions)


@pytest.mark.parametrize("size", ["01", "-1", "1 ", "", "0x1", "12345678901234567890"])
def test_a_size_has_one_spelling(size: str) -> None:
    with pytest.raises(InvalidSignatureError):
        Checkpoint.parse(CHECKPOINT.text().replace(f"\n{len(LEAVES)}\n", f"\n{size}\n"))
