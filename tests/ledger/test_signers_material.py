"""Signers whose keys are in the environment or in files."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.ledger.signers.material import MaterialSigner
from keystead.ledger.signers.signer import SignerSettings
from keystead.model import SignatureAlgorithm
from keystead.ports import AuditEvent
from keystead.providers.key_material import fingerprint
from keystead.providers.key_sources import FileSource, Reading, State, VariableSource
from tests.fakes.clock import FakeClock

OLD, NEW = bytes(range(32)), bytes(range(32, 63)) + b"\xff"
MESSAGE = b"what happened"
Make = Callable[..., MaterialSigner]


def lines(*keys: bytes) -> str:
    return "\n".join(key.hex() for key in keys)


class Place:
    """A variable or a file, changed by whoever rotates."""

    def __init__(self, kind: str, folder: Path, clock: FakeClock) -> None:
        self.kind = kind
        self.environ: dict[str, str] = {}
        self.path = folder / "key"
        self.clock = clock
        self.put(OLD)

    def put(self, *keys: bytes) -> None:
        self.environ["A_KEY"] = lines(*keys)
        staged = self.path.with_suffix(".new")
        staged.write_text(lines(*keys))
        staged.chmod(0o600)
        staged.rename(self.path)

    def signer(self, **settings: Any) -> MaterialSigner:
        key_id = settings.pop("key_id", None)
        given = SignerSettings(**{"ttl_s": 1.0, "clock": self.clock, **settings})
        if self.kind == "variable":
            return MaterialSigner(VariableSource("A_KEY", environ=self.environ), "env:A_KEY", given, key_id=key_id)
        return MaterialSigner(FileSource(str(self.path)), f"file:{self.path}", given, key_id=key_id)


@pytest.fixture(params=["variable", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Place:
    return Place(request.param, tmp_path, clock)


async def test_a_signature_is_the_plain_mac_under_the_key_itself(place: Place) -> None:
    assert await place.signer().sign(MESSAGE) == hmac.digest(OLD, MESSAGE, "sha256")


@pytest.mark.parametrize("algorithm", [None, SignatureAlgorithm.HMAC_SHA_256, SignatureAlgorithm.ED25519])
@pytest.mark.parametrize("message", [b"", MESSAGE, bytes(10_000)])
async def test_what_is_signed_verifies(place: Place, algorithm: SignatureAlgorithm | None, message: bytes) -> None:
    one = place.signer(algorithm=algorithm)
    signature = await one.sign(message)
    assert len(signature) == (64 if algorithm is SignatureAlgorithm.ED25519 else 32)
    await place.signer(algorithm=algorithm).verify(message, signature)
    for other in (signature[:-1], b"", bytes(len(signature))):
        with pytest.raises(InvalidSignatureError):
            await one.verify(message, other)
    with pytest.raises(InvalidSignatureError):
        await one.verify(message + b"!", signature)


def test_an_algorithm_that_such_keys_do_not_have_is_refused(place: Place) -> None:
    with pytest.raises(ConfigurationError, match="Ed25519 or HMAC-SHA-256"):
        place.signer(algorithm=SignatureAlgorithm.RSA_PSS_SHA_256)


async def test_each_message_of_a_batch_verifies_alone(place: Place) -> None:
    one = place.signer()
    messages = [str(number).encode() for number in range(10)]
    for message, signature in zip(messages, await one.sign_batch(messages), strict=True):
        await one.verify(message, signature)


async def test_the_newest_key_signs_and_all_verify(place: Place) -> None:
    one = place.signer()
    old = await one.sign(MESSAGE)
    place.put(NEW, OLD)
    place.clock.advance(1)
    new = await one.sign(MESSAGE)
    assert (old, new) == tuple(hmac.digest(key, MESSAGE, "sha256") for key in (OLD, NEW))
    for signature in (old, new):
        await one.verify(MESSAGE, signature)
        await place.signer().verify(MESSAGE, signature)


async def test_a_rotation_check_looks_at_once(place: Place) -> None:
    one = place.signer(ttl_s=10**6)
    await one.sign(MESSAGE)
    assert not await one.rotate_check()
    place.put(NEW, OLD)
    assert await one.rotate_check()
    assert not await one.rotate_check()
    assert await one.sign(MESSAGE) == hmac.digest(NEW, MESSAGE, "sha256")


async def test_a_rotation_that_was_noticed_before_is_told_by_the_check_as_well(place: Place) -> None:
    one = place.signer()
    await one.sign(MESSAGE)
    place.put(NEW, OLD)
    place.clock.advance(1)
    await one.sign(MESSAGE)
    assert await one.rotate_check()


async def test_another_key_behind_the_newest_is_no_rotation(place: Place) -> None:
    one = place.signer()
    await one.sign(MESSAGE)
    place.put(OLD, NEW)
    assert not await one.rotate_check()
    await one.verify(MESSAGE, hmac.digest(NEW, MESSAGE, "sha256"))


async def test_a_key_id_has_the_fingerprint_of_its_key(place: Place) -> None:
    one = place.signer()
    signed = await one.sign_named(MESSAGE, key_id="audit")
    assert signed.key_id == f"audit#{fingerprint(OLD)}" == await one.current_key_id(key_id="audit")
    place.put(NEW, OLD)
    await one.rotate_check()
    assert await one.current_key_id(key_id="audit") == f"audit#{fingerprint(NEW)}"
    assert await one.current_key_id(key_id=signed.key_id) == f"audit#{fingerprint(NEW)}"
    assert (await one.current_key_id()).endswith(f"#{fingerprint(NEW)}")


async def test_f6_a_fingerprint_means_that_key_alone(place: Place) -> None:
    place.put(NEW, OLD)
    one = place.signer()
    old, new = f"audit#{fingerprint(OLD)}", f"audit#{fingerprint(NEW)}"
    assert await one.get_key(key_id=old) == OLD
    assert await one.sign(MESSAGE, key_id=old) == hmac.digest(OLD, MESSAGE, "sha256")
    await one.verify(MESSAGE, await one.sign(MESSAGE, key_id=old), key_id=old)
    with pytest.raises(InvalidSignatureError):
        await one.verify(MESSAGE, await one.sign(MESSAGE, key_id=new), key_id=old)


async def test_f21_a_key_that_is_not_there_could_not_be_asked(place: Place) -> None:
    one = place.signer()
    signature = await one.sign(MESSAGE)
    with pytest.raises(KeyNotFoundError, match="put it back"):
        await one.verify(MESSAGE, signature, key_id=f"audit#{fingerprint(NEW)}")


async def test_a_key_that_was_put_there_meanwhile_is_found_by_its_fingerprint(place: Place) -> None:
    one = place.signer(ttl_s=10**6)
    await one.sign(MESSAGE)
    place.put(OLD, NEW)
    named = f"audit#{fingerprint(NEW)}"
    await one.verify(MESSAGE, hmac.digest(NEW, MESSAGE, "sha256"), key_id=named)


async def test_a_signature_by_a_key_that_another_process_began_to_use_verifies(place: Place) -> None:
    one = place.signer(ttl_s=10**6)
    await one.sign(MESSAGE)
    place.put(NEW, OLD)
    await one.verify(MESSAGE, await place.signer().sign(MESSAGE))


async def test_f6_another_id_than_the_configured_one_is_refused(place: Place) -> None:
    one = place.signer(key_id="audit")
    signature = await one.sign(MESSAGE, key_id="audit")
    await one.verify(MESSAGE, signature, key_id=await one.current_key_id(key_id="audit"))
    await one.verify(MESSAGE, signature)
    for call in (one.verify(MESSAGE, signature, key_id="other"), one.get_key(key_id="../evil")):
        with pytest.raises(KeyNotFoundError):
            await call


async def test_a_key_that_was_taken_out_verifies_no_more(place: Place) -> None:
    one = place.signer()
    old = await one.sign(MESSAGE)
    place.put(NEW)
    place.clock.advance(1)
    with pytest.raises(InvalidSignatureError):
        await one.verify(MESSAGE, old)


async def test_f22_keys_that_were_replaced_or_given_up_are_overwritten(place: Place) -> None:
    one = place.signer()
    await one.sign(MESSAGE)
    held = one._held.known
    assert held is not None
    buffer = held.keys[0].held._key
    place.put(NEW)
    await one.rotate_check()
    assert buffer == bytes(32)
    held = one._held.known
    assert held is not None
    buffer = held.keys[0].held._key
    await one.aclose()
    assert buffer == bytes(32)
    with pytest.raises(SystemShutdownError):
        await one.sign(MESSAGE)


async def test_a_file_that_changed_but_holds_the_same_keys_changes_nothing(place: Place) -> None:
    events: list[AuditEvent] = []
    one = place.signer(audit=events.append)
    await one.sign(MESSAGE)
    place.put(OLD)
    place.clock.advance(1)
    await one.verify(MESSAGE, await one.sign(MESSAGE))
    assert [event.action for event in events] == ["key.read"]


async def test_reading_getting_and_rotating_are_audited_and_no_message_is(place: Place) -> None:
    events: list[AuditEvent] = []
    one = place.signer(audit=events.append)
    for _ in range(20):
        await one.sign(MESSAGE)
        await one.get_key(key_id="audit")
    place.put(NEW, OLD)
    await one.rotate_check()
    await one.get_key(key_id="audit")
    assert [(event.action, event.details["version"]) for event in events] == [
        ("key.read", fingerprint(OLD)),
        ("key.get", fingerprint(OLD)),
        ("key.rotate", fingerprint(NEW)),
        ("key.get", fingerprint(NEW)),
    ]


async def test_f23_purposes_have_keys_of_their_own(place: Place) -> None:
    one = place.signer(stream="app")
    keys = {await one.get_key(), await one.derive_key("record"), await one.derive_key("manifest")}
    assert len(keys | {await place.signer().derive_key("record")}) == 4


async def test_a_place_without_a_key_says_so_and_is_looked_at_again(tmp_path: Path) -> None:
    one = MaterialSigner(FileSource(str(tmp_path / "key")), "file")
    for _ in range(2):
        with pytest.raises(KeyNotFoundError, match="no key file"):
            await one.sign(MESSAGE)
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(OLD)
    await one.verify(MESSAGE, await one.sign(MESSAGE))


async def test_a_file_that_is_broken_is_not_signed_by_until_it_is_whole(place: Place) -> None:
    if place.kind == "variable":
        return
    one = place.signer()
    await one.sign(MESSAGE)
    place.path.write_bytes(OLD[:31])
    place.clock.advance(1)
    with pytest.raises(ConfigurationError):
        await one.sign(MESSAGE)
    place.put(OLD)
    await one.sign(MESSAGE)


class Failing:
    """A disk that fails when it is told to."""

    name = "a disk"
    is_instant = False
    failure: Exception | None = None

    def __init__(self, path: Path) -> None:
        self._file = FileSource(str(path))

    def look(self) -> State:
        if self.failure is not None:
            raise self.failure
        return self._file.look()

    def read(self) -> Reading:
        return self._file.read()


async def test_a_disk_that_fails_is_no_invalid_signature_and_is_bridged(place: Place) -> None:
    disk = Failing(place.path)
    one = MaterialSigner(disk, "disk", SignerSettings(ttl_s=1, grace_s=60, clock=place.clock))
    signature = await one.sign(MESSAGE)
    disk.failure = ProviderConnectionError("Input/output error")
    place.clock.advance(30)
    await one.verify(MESSAGE, signature)
    place.clock.advance(31)
    with pytest.raises(ProviderConnectionError):
        await one.verify(MESSAGE, signature)
    await one.aclose()


async def test_text_is_neither_signed_nor_a_signature(place: Place) -> None:
    with pytest.raises(InvalidInputError):
        await place.signer().sign("text")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        await place.signer().verify(MESSAGE, "text")  # type: ignore[arg-type]
