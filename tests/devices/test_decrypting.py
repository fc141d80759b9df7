"""What clients send is opened for its owner, and everything that is wrong with it is the same to them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from keystead.devices.decrypting import JUNK, Encrypted
from keystead.devices.junk import AT_ONCE
from keystead.devices.pairs import Algorithm, OpenKey, Purpose
from keystead.devices.payloads import Operation
from keystead.devices.surroundings import DevicePolicy
from keystead.errors import (
    DecryptionError,
    InvalidInputError,
    KeyExpiredError,
    KeyNotFoundError,
    RateLimitedError,
    ReplayedError,
    StorageOperationError,
)
from keystead.ports import ClientKeyRecord, PairKind, SecretKind
from tests.audit.worlds import waiting
from tests.devices.room import ADA, BOB, DAY, devices, encrypted, later
from tests.fakes.clock import FakeClock
from tests.fakes.world import World

VERIFY = Operation.VERIFY_PASSCODE


def payload(key: ClientKeyRecord, clock: FakeClock, operation: Operation = VERIFY, **changes: object) -> str:
    members = {"v": 2, "op": operation.value, "aud": key.id, "nonce": "n" * 16, "secret": "correct horse"}
    return json.dumps({**members, "ts": int(clock.now().timestamp() * 1000), **changes})


@pytest.mark.parametrize("algorithm", [None, Algorithm.RSA_OAEP_SHA1, Algorithm.RSA_OAEP_SHA256])
async def test_rsa_opens_by_the_algorithm_that_is_declared(world: World, algorithm: Algorithm | None) -> None:
    async with world.open() as km:
        room = await devices(km, DevicePolicy())
        key = await room.keys.generate(ADA, "phone")
        sent = encrypted(key, "naïve 🔑", algorithm=algorithm)
        assert (await room.decrypting.open(ADA, sent, VERIFY)).secret == "naïve 🔑"
        other = Algorithm.RSA_OAEP_SHA256 if algorithm is not Algorithm.RSA_OAEP_SHA256 else Algorithm.RSA_OAEP_SHA1
        with pytest.raises(DecryptionError, match=r"^Failed to decrypt data$"):
            await room.decrypting.open(ADA, replace(sent, algorithm=other), VERIFY)


async def test_hpke_opens_for_the_purpose_that_it_was_encrypted_for(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        key = await room.keys.generate(ADA, "phone")
        sent = encrypted(key, "secret", Purpose.PASSCODE)
        opened = await room.decrypting.open(ADA, sent, VERIFY)
        assert (opened.secret, opened.key.id) == ("secret", key.id)
        for operation in (Operation.VERIFY_PIN, Operation.DECRYPT):
            with pytest.raises(DecryptionError):
                await room.decrypting.open(ADA, sent, operation)
        assert await room.decrypting.decrypt_data(ADA, encrypted(key, "secret", Purpose.DATA)) == "secret"


async def test_what_is_wrong_is_told_apart_here_and_each_is_junk(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        room = await devices(km, DevicePolicy())
        key = await room.keys.generate(ADA, "phone")
        sent = encrypted(key, "secret")
        wrong: list[tuple[Encrypted, type[Exception], str]] = [
            (replace(sent, key_id="key_other"), KeyNotFoundError, "Encryption key not found"),
            (replace(sent, text="!"), DecryptionError, "Failed to decrypt data"),
            (replace(sent, text=base64.b64encode(bytes(256)).decode()), DecryptionError, "Failed to decrypt data"),
            (replace(sent, text="A" * 2736), DecryptionError, "Encrypted data size exceeds limit"),
            (replace(sent, payload_version=2), DecryptionError, "Failed to decrypt data"),
            (encrypted(key, b"\xff"), DecryptionError, "Failed to decrypt data"),
        ]
        for given, kind, message in wrong:
            with pytest.raises(kind, match=message) as caught:
                await room.decrypting.open(ADA, given, VERIFY)
            assert isinstance(caught.value, JUNK)
        for given, message in (
            (replace(sent, key_id="ä"), "a key id is"),
            (replace(sent, payload_version=3), "payloadVersion is 1 or 2"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                await room.decrypting.open(ADA, given, VERIFY)
        with pytest.raises(KeyNotFoundError, match="Encryption key not found"):
            await room.decrypting.open(BOB, sent, VERIFY)
        await later(km, clock, 30 * DAY + timedelta(minutes=5))
        with pytest.raises(KeyExpiredError):
            await room.decrypting.open(ADA, sent, VERIFY)


@pytest.mark.parametrize(("kind", "size"), [(PairKind.RSA_2048, 256), (PairKind.X25519, 48)])
async def test_whatever_is_wrong_with_a_ciphertext_costs_one_decryption_as_a_right_one_does(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, kind: PairKind, size: int
) -> None:
    blocks: list[tuple[PairKind, int]] = []
    decrypted = OpenKey._decrypted

    def counted(self: OpenKey, block: bytes, algorithm: Algorithm, info: bytes) -> bytes:
        blocks.append((self.kind, len(block)))
        return decrypted(self, block, algorithm, info)

    monkeypatch.setattr(OpenKey, "_decrypted", counted)
    async with world.open() as km:
        room = await devices(km)
        key, of_bob = await room.keys.generate(ADA, "phone", kind=kind), await room.keys.generate(BOB, "laptop")
        ended = await room.keys.generate(ADA, "tablet")
        await room.owners.revoke(ADA, "tablet")
        sent, used = encrypted(key, "1357"), encrypted(key, "1357")
        await room.secrets.set(ADA, SecretKind.PASSCODE, used)
        other = Algorithm.HPKE_X25519 if kind is PairKind.RSA_2048 else Algorithm.RSA_OAEP_SHA1

        def junk(length: int) -> Encrypted:
            return replace(sent, text=base64.b64encode(b"\x09" * length).decode())

        of_this_key = [
            (sent, size),
            (used, size),
            (encrypted(of_bob, "1357"), size),
            (replace(sent, text="!"), size),
            (replace(sent, text=""), size),
            (replace(sent, text="A" * 2736), size),
            (replace(sent, algorithm=other), size),
            (replace(sent, payload_version=2), size),
            *((junk(length), size) for length in (1, 47, 255)),
            (junk(256), 256),
        ]
        for number, (given, least) in enumerate(of_this_key):
            blocks.clear()
            if number == 0:
                await room.decrypting.open(ADA, given, VERIFY)
            else:
                with pytest.raises(JUNK):
                    await room.decrypting.open(ADA, replace(given, key_id=key.id), VERIFY)
            ((of, length),) = blocks
            assert of is kind, number
            assert length == 256 if kind is PairKind.RSA_2048 else length >= least, number
        # Where no private half is at hand, another key stands in, and what was sent may not even fit it.
        for key_id in ("key_other", of_bob.id, ended.id):
            for given in (sent, replace(sent, text="!")):
                blocks.clear()
                with pytest.raises(JUNK):
                    await room.decrypting.open(ADA, replace(given, key_id=key_id), VERIFY)
                assert blocks == [(PairKind.RSA_2048, 256)]


async def test_a_passcode_that_was_bound_to_its_operation_is_no_pin(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        room = await devices(km)
        key = await room.keys.generate(ADA, "phone", kind=PairKind.RSA_2048)
        sent = encrypted(key, payload(key, clock, secret="471142"), payload_version=2)
        for operation in set(Operation) - {VERIFY}:
            with pytest.raises(DecryptionError):
                await room.decrypting.open(ADA, sent, operation)
        assert (await room.decrypting.open(ADA, sent, VERIFY)).secret == "471142"
        # Without a payload, RSA binds it to nothing.
        bare = encrypted(key, "471142")
        assert (await room.decrypting.open(ADA, bare, Operation.VERIFY_PIN)).secret == "471142"


async def test_a_bound_payload_is_for_one_operation_key_and_time(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        room = await devices(km)
        key, other = await room.keys.generate(ADA, "phone"), await room.keys.generate(ADA, "tablet")

        async def opens(key: ClientKeyRecord, text: str, operation: Operation = VERIFY) -> bool:
            try:
                opened = await room.decrypting.open(ADA, encrypted(key, text, payload_version=2), operation)
            except DecryptionError:
                return False
            assert opened.until == clock.now() + timedelta(seconds=240)
            return opened.secret == "correct horse"

        whole = payload(key, clock)
        assert await opens(key, whole)
        assert not await opens(key, whole, Operation.SET_PASSCODE)
        assert not await opens(other, whole)
        await later(km, clock, timedelta(seconds=120))
        assert await opens(key, whole)
        await later(km, clock, timedelta(milliseconds=1))
        assert not await opens(key, whole)


async def test_what_succeeded_is_not_opened_again_but_data_is(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        key = await room.keys.generate(ADA, "phone")
        sent, data = encrypted(key, "1357"), encrypted(key, "data", Purpose.DATA)
        # What was opened and not used may come again: it is no success yet.
        assert [(await room.decrypting.open(ADA, sent, VERIFY)).secret for _ in range(2)] == ["1357"] * 2
        await room.secrets.set(ADA, SecretKind.PASSCODE, sent)
        with pytest.raises(ReplayedError):
            await room.decrypting.open(ADA, sent, VERIFY)
        # In another alphabet, with white space, it is the same.
        with pytest.raises(ReplayedError):
            text = sent.text.replace("+", "-").replace("/", "_").rstrip("=")
            await room.decrypting.open(ADA, replace(sent, text=f" {text}\n"), VERIFY)
        assert [await room.decrypting.decrypt_data(ADA, data) for _ in range(3)] == ["data"] * 3


async def test_who_sends_too_much_junk_is_refused_for_a_while_and_others_are_not(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        room = await devices(km)
        mine, of_bob = await room.keys.generate(ADA, "phone"), await room.keys.generate(BOB, "laptop")
        junk = encrypted(mine, b"\xff")
        for _ in range(AT_ONCE):
            with pytest.raises(DecryptionError):
                await room.decrypting.open(ADA, junk, VERIFY)
        with pytest.raises(RateLimitedError, match="does not decrypt"):
            await room.decrypting.open(ADA, encrypted(mine, "right"), VERIFY)
        assert (await room.decrypting.open(BOB, encrypted(of_bob, "right"), VERIFY)).secret == "right"
        await later(km, clock, timedelta(seconds=3))
        assert (await room.decrypting.open(ADA, encrypted(mine, "right"), VERIFY)).secret == "right"


async def test_each_decryption_is_counted_once_whoever_writes_it_and_whatever_fails(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as other:
        nodes = [await devices(km), await devices(other)]
        key = await nodes[0].keys.generate(ADA, "phone", kind=PairKind.X25519)
        for number in range(10):
            await nodes[number % 2].decrypting.open(ADA, encrypted(key, "secret"), VERIFY)
        with pytest.raises(DecryptionError):
            await nodes[0].decrypting.open(ADA, replace(encrypted(key, "secret"), text="AAAA"), VERIFY)
        with monkeypatch.context() as patched:

            def away() -> None:
                raise StorageOperationError("the database is away")

            patched.setattr(nodes[0].uses._s.store, "transaction", away)
            with pytest.raises(StorageOperationError):
                await nodes[0].uses.flush()
        for room in nodes * 2:
            await room.uses.flush()
        async with world.store.reading() as work:
            found = await work.find_client_key(key.id)
        assert found is not None
        assert (found.usage_count, found.last_used) == (10, clock.now())


async def test_who_decrypted_data_is_in_the_trail_and_the_data_is_not(world: World) -> None:
    async with world.open(audit=True) as km:
        room = await devices(km)
        key = await room.keys.generate(ADA, "phone")
        assert (
            await room.decrypting.decrypt_data(ADA, encrypted(key, "battery staple", Purpose.DATA)) == "battery staple"
        )
        (entry,) = [entry for entry in await waiting(world) if entry["action"] == "client_key.decrypt"]
    named = {name: entry["details"][name] for name in ("client_key", "device", "user")}
    assert named == {"client_key": key.id, "device": "phone", "user": "ada"}
    assert "staple" not in str(entry)
