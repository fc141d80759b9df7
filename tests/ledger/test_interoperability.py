"""Another implementation of C2SP's checkpoints, cosignatures and proofs reads ours, and we read its."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from tlog_scales import backend, signing, tiles, tlog
from tlog_scales.reader import TilesReader
from tlog_scales.writer import TilesWriter

from keystead.crypto.merkle import leaf_hash, verify_consistency, verify_inclusion
from keystead.errors import InvalidProofError
from keystead.ledger import ProofBundle, SealedFile, TrustPolicy, prove, prove_consistency, record_line
from keystead.ledger.tlog.checkpoint import Checkpoint, verify_checkpoint
from keystead.ledger.tlog.cosignature import WitnessKey, WitnessSigner
from keystead.ledger.tlog.note import Note, NoteKey, parse_signatures
from keystead.ledger.witness.client import with_cosignatures
from keystead.ledger.witness.witness import FolderState, Witness
from keystead.testing import FakeKMS

STREAM = "example.org/app"
NOW = 1_900_000_000
WITNESSES = {
    "ed25519": WitnessSigner("witness.example.org/w1", Ed25519PrivateKey.from_private_bytes(bytes(32))),
    "ml-dsa-44": WitnessSigner("witness.example.org/w2", MLDSA44PrivateKey.from_seed_bytes(bytes(32))),
}

LOG_SIGNER = signing.PlainEd25519Signer("tiles.example.org/log", bytes(31) + b"1")
COSIGNER = signing.MLDSA44CosignatureSigner("witness.example.org/w3", bytes(31) + b"2")


def their_vkey(signer: signing.CheckpointSigner) -> str:
    return str(signer.vkey.serialize())  # type: ignore[no-untyped-call]  # theirs


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrustPolicy, list[bytes]]:
    """A log of some hundred records in two files, its policy, and checkpoints that were kept."""
    path = tmp_path_factory.mktemp("log") / "app.log"
    with SealedFile(path, stream=STREAM, kms=FakeKMS(), key_id="audit") as log:
        kept = []
        for number in range(6):
            log.append_many([b'{"number":%d}' % number] * 90)
            kept.append(log.checkpoint())
            if number == 3:
                log.rotate()
        return path, log.trust_policy(), kept


def theirs(note: bytes) -> tlog.Checkpoint:
    return tlog.Checkpoint.from_text(note.decode())


def vkey(key: NoteKey) -> signing.Vkey:
    return signing.Vkey.from_string(key.vkey)


def test_our_checkpoints_verify_there(log: tuple[Path, TrustPolicy, list[bytes]]) -> None:
    _, policy, kept = log
    key = vkey(policy.signers[0].key)
    for note in kept:
        read = theirs(note)
        assert read.serialize().encode() == note
        assert len(signing.VkeySet(key).verify(read.signatures, read)) == 1
        stranger = signing.PlainEd25519Signer(STREAM, bytes(32)).vkey
        assert signing.VkeySet(stranger).verify(read.signatures, read) == set()


@pytest.mark.parametrize("kind", WITNESSES)
def test_our_cosignatures_verify_there(log: tuple[Path, TrustPolicy, list[bytes]], kind: str) -> None:
    note, signer = log[2][0], WITNESSES[kind]
    cosigned = theirs(with_cosignatures(note, [signer.cosign(Note.parse(note).text, NOW)]))
    assert len(signing.VkeySet(vkey(signer.key.key)).verify(cosigned.signatures, cosigned)) == 1
    moved = tlog.Checkpoint(cosigned.origin, cosigned.size + 1, cosigned.root_hash, cosigned.signatures)
    assert signing.VkeySet(vkey(signer.key.key)).verify(moved.signatures, moved) == set()


@pytest.mark.parametrize("number", [0, 1, 89, 255, 256, 368, 400, 540])
def test_our_proofs_verify_there(log: tuple[Path, TrustPolicy, list[bytes]], number: int) -> None:
    path, policy, _ = log
    bundle = prove(path, number)
    checkpoint = theirs(bundle.checkpoint)
    assert signing.VkeySet(vkey(policy.signers[0].key)).verify(checkpoint.signatures, checkpoint)
    proof = tlog.InclusionProof(number, checkpoint.size, list(bundle.hashes))
    proof.check(tiles.leaf_hash(record_line(path, number)), checkpoint.root_hash)
    with pytest.raises(tlog.InclusionProofInvalid):
        proof.check(tiles.leaf_hash(b"another"), checkpoint.root_hash)


def test_our_proofs_of_growth_verify_there(log: tuple[Path, TrustPolicy, list[bytes]]) -> None:
    path, _, kept = log
    states = [Checkpoint.parse(Note.parse(note).text) for note in kept]
    for old in states:
        for new in (each for each in states if each.size > old.size):
            proof = tlog.ConsistencyProof(old.size, new.size, prove_consistency(path, old, new))
            proof.check(old.root, new.root)


@pytest.fixture
def tiled(tmp_path: Path) -> tuple[TilesReader, Path, list[bytes]]:
    """A log that the other implementation has written, cosigned by its ML-DSA-44 key."""
    writer = TilesWriter.create(tmp_path / "tiles", "tiles.example.org/log")
    leaves = [str(number).encode() for number in range(700)]
    for leaf in leaves:
        writer.add_leaf(leaf)
    signers: list[signing.CheckpointSigner] = [
        LOG_SIGNER,
        COSIGNER,
    ]
    writer.commit(signers)
    return TilesReader(backend.LocalBackend(tmp_path / "tiles")), tmp_path / "tiles", leaves


def test_its_checkpoints_and_cosignatures_verify_here(tiled: tuple[TilesReader, Path, list[bytes]]) -> None:
    content = (tiled[1] / "checkpoint").read_bytes()
    key = NoteKey.parse(their_vkey(LOG_SIGNER))
    witness = WitnessKey.parse(their_vkey(COSIGNER))
    signed = verify_checkpoint(content, [key, witness], origin="tiles.example.org/log")
    assert (signed.checkpoint.size, len(signed.signed_by)) == (700, 2)
    assert signed.note.render() == content


@pytest.mark.parametrize("number", [0, 255, 256, 511, 699])
def test_its_proofs_verify_here(tiled: tuple[TilesReader, Path, list[bytes]], number: int) -> None:
    reader, _, leaves = tiled
    checkpoint = reader.get_checkpoint()
    proof = reader.get_inclusion_proof(number, checkpoint.size)
    verify_inclusion(leaf_hash(leaves[number]), number, 700, proof.node_hashes, checkpoint.root_hash)
    with pytest.raises(InvalidProofError):
        verify_inclusion(leaf_hash(b"another"), number, 700, proof.node_hashes, checkpoint.root_hash)
    hashes = "".join(f"{b64encode(each).decode()}\n" for each in proof.node_hashes)
    text = f"c2sp.org/tlog-proof@v1\nindex {number}\n{hashes}\n{checkpoint.serialize()}"
    bundle = ProofBundle.parse(text.encode())
    key = NoteKey.parse(their_vkey(LOG_SIGNER))
    assert bundle.verify(leaves[number], [key]).checkpoint.size == 700
    assert bundle.render() == text.encode()


@pytest.mark.parametrize("old", [1, 2, 255, 256, 512, 699])
def test_its_proofs_of_growth_verify_here(tiled: tuple[TilesReader, Path, list[bytes]], old: int) -> None:
    reader, _, _ = tiled
    new = reader.get_checkpoint()
    proof = reader.get_consistency_proof(old, new.size)
    root = reader.mth(0, old)
    verify_consistency(old, new.size, root, new.root_hash, proof.node_hashes)


def test_our_witness_cosigns_its_logs_and_it_reads_the_answer(
    tiled: tuple[TilesReader, Path, list[bytes]], tmp_path: Path
) -> None:
    _, folder, _ = tiled
    content = (folder / "checkpoint").read_bytes()
    key = NoteKey.parse(their_vkey(LOG_SIGNER))
    signers = list(WITNESSES.values())
    witness = Witness(signers, {"tiles.example.org/log": [key]}, FolderState(tmp_path / "witness"), lambda: NOW)
    answer = witness.add_checkpoint(b"old 0\n\n" + content)
    assert answer.status == 200
    cosigned = theirs(with_cosignatures(content, parse_signatures(answer.body)))
    keys = signing.VkeySet(*(vkey(each.key.key) for each in signers))
    assert len(keys.verify(cosigned.signatures, cosigned)) == 2
