"""Checkpoints: when they are made, who signs them, and how they leave the database."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.errors import InvalidInputError, ProviderConnectionError
from keystead.ledger.audit.exporting import Witness
from keystead.ledger.reading.policy import TrustPolicy
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.checkpoint_signers import LocalSigner
from keystead.ledger.tlog.note import Note, NoteSignature
from tests.audit.places import Place, auditing_of, kinds, options, seal
from tests.ledger.witnesses import ED25519, serving

SEED = bytes(range(32))


class RemoteSigner(LocalSigner):
    """Signs somewhere else, when it is let."""

    is_remote = True

    def __init__(self) -> None:
        super().__init__("audit.example.org", Ed25519PrivateKey.from_private_bytes(SEED))
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.failures = 0
        self.is_asked = threading.Event()

    def sign(self, text: str) -> NoteSignature:
        """Sign, or fail."""
        self.is_asked.set()
        self.may_answer.wait(30)
        if self.failures:
            self.failures -= 1
            raise ProviderConnectionError("the KMS is away")
        return super().sign(text)


def size_of(note: bytes) -> int:
    return Checkpoint.parse(Note.parse(note).text).size


async def test_a_checkpoint_is_over_everything_that_was_written_before(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid", number=1)
        note = await km.audit.checkpoint()
        [record] = await km.audit.entries(action="order.paid")
        assert size_of(note) > record.seq
        assert await km.audit.last_checkpoint() == note
        assert (await km.audit.verify(since=note)).log.vouched >= size_of(note)


async def test_checkpoints_are_made_after_so_many_records(place: Place) -> None:
    async with place.open(audit=options(checkpoint_records=5)) as km:
        for number in range(12):
            await km.audit.record("order.paid", number=number)
            await seal(km)
        made = place.execute("SELECT count(*) FROM audit_log WHERE kind = 'checkpoint'")[0][0]
        assert made >= 2


async def test_a_checkpoint_leaves_the_database_for_a_file(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "last"
    async with place.open(audit=options(checkpoint_file=file)) as km:
        await km.audit.record("order.paid")
        note = await km.audit.checkpoint()
    assert size_of(file.read_bytes()) >= size_of(note)
    async with place.open() as km:
        status = await km.audit.status()
        assert status.exported_records >= size_of(note)
        assert (await km.audit.verify(since=file.read_bytes())).valid


async def test_the_end_of_the_table_cannot_be_cut_off_unseen_by_who_has_the_file(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "last"
    async with place.open(audit=options(checkpoint_file=file)) as km:
        await km.audit.record("order.paid", number=1)
        await seal(km)
        earlier = place.kept()
        await km.audit.record("order.paid", number=2)
    kept = file.read_bytes()
    place.tamper()
    place.put_back(earlier)
    async with place.open(audit=None) as km:
        assert "rolled_back" in kinds(await km.audit.verify(since=kept))


async def test_a_witness_cosigns_what_is_exported(sqlite_place: Place, tmp_path: Path) -> None:
    async with sqlite_place.open(audit=options()) as km:
        await km.audit.record("order.paid")
        await km.audit.checkpoint()
        policy: TrustPolicy = await km.audit.trust_policy()
    keys = [signer.key for signer in policy.signers]
    with serving(tmp_path, {policy.stream: keys}) as witness:
        asked = Witness.parse(witness.url, ED25519.key.key.vkey)
        file = tmp_path / "last"
        async with sqlite_place.open(audit=options(witnesses=[asked], checkpoint_file=file)) as km:
            for number in range(3):
                await km.audit.record("order.paid", number=number)
                await km.audit.checkpoint()
                await asyncio.sleep(0.05)
        note = Note.parse(file.read_bytes())
        assert {signature.name for signature in note.signatures} == {policy.stream, ED25519.key.key.name}


async def test_a_witness_that_is_away_holds_up_nothing(sqlite_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    away = Witness.parse("http://127.0.0.1:9", ED25519.key.key.vkey)
    async with sqlite_place.open(audit=options(witnesses=[away])) as km:
        await km.audit.record("order.paid")
        await km.audit.checkpoint()
    assert "a witness did not cosign" in caplog.text


async def test_a_signature_that_takes_its_time_holds_up_no_entry(place: Place) -> None:
    signer = RemoteSigner()
    async with place.open(audit=options(signer=signer)) as km:
        signer.may_answer.clear()
        await km.audit.record("order.paid", number=1)
        asking = asyncio.ensure_future(km.audit.checkpoint())
        assert await asyncio.to_thread(signer.is_asked.wait, 30)
        await km.audit.record("order.paid", number=2)
        await seal(km)
        assert len(await km.audit.entries(action="order.paid")) == 2
        signer.may_answer.set()
        note = await asking
        report = await km.audit.verify(since=note)
        assert (report.valid, report.log.vouched >= size_of(note)) == (True, True)


async def test_a_checkpoint_that_a_kms_refuses_is_asked_for_again(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.ledger.audit.checkpoints.RETRY_S", 0.01)
    signer = RemoteSigner()
    async with place.open(audit=options(signer=signer)) as km:
        signer.failures = 1
        note = await km.audit.checkpoint()
        assert "could not be signed" in caplog.text
        assert (await km.audit.verify(since=note)).valid


async def test_who_asks_while_another_checkpoint_is_signed_gets_one_over_its_own_records(place: Place) -> None:
    signer = RemoteSigner()
    async with place.open(audit=options(signer=signer)) as km:
        signer.may_answer.clear()
        first = asyncio.ensure_future(km.audit.checkpoint())
        assert await asyncio.to_thread(signer.is_asked.wait, 30)
        await km.audit.record("order.paid", number=1)
        second = asyncio.ensure_future(km.audit.checkpoint())
        await asyncio.sleep(0.1)
        signer.may_answer.set()
        [record] = [*await asyncio.gather(first, second)][1:]
        [paid] = await km.audit.entries(action="order.paid")
        assert size_of(record) > paid.seq


async def test_a_state_key_that_was_rotated_signs_from_then_on(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.checkpoint()
        session = await km.session()
        await session.lifecycle.rotation.rotate("keystead.audit", promote="now")
        await km.audit.record("order.paid")
        note = await km.audit.checkpoint()
    async with place.open(audit=None) as km:
        await km.audit.record("order.paid")
        await seal(km)
        assert (await km.audit.verify(since=note, compares_store=True)).valid


async def test_what_is_no_checkpoint_is_none_to_verify_with(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        with pytest.raises(InvalidInputError):
            await km.audit.verify(since=b"a note of somebody's")
        assert auditing_of(km).providers == {}
