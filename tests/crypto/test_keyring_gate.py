"""What a keyring asks before it works, and what is left when it must stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import KeyringSnapshot
from keystead.errors import (
    KeyStateError,
    KMSError,
    SystemShutdownError,
)
from keystead.model import DataKeyState
from tests.crypto.rings import holding, loaded, ring


class Gate:
    """A gate that a test opens and closes."""

    def __init__(self) -> None:
        self.refusal: KMSError | None = None
        self.asked: list[bool] = []

    def __call__(self, keyring: Keyring, encrypting: bool) -> KMSError | None:
        self.asked.append(encrypting)
        return self.refusal


def test_a_refused_gate_stops_every_call_after_a_block_and_none_once_it_opens() -> None:
    gate = Gate()
    keyring = ring(gate=gate)
    blob = keyring.local_encrypt(b"x")
    assert keyring.local_decrypt(blob) == b"x"
    gate.refusal = SystemShutdownError("closed")
    keyring.block()
    calls: list[Callable[[], object]] = [
        lambda: keyring.local_encrypt(b"x"),
        lambda: keyring.local_decrypt(blob),
        lambda: keyring.new_header(1),
        keyring.copy_active,
    ]
    for call in calls:
        with pytest.raises(SystemShutdownError):
            call()
    gate.refusal = None
    assert keyring.local_decrypt(keyring.local_encrypt(b"y")) == b"y"
    assert keyring.local_decrypt(blob) == b"x"


def test_a_block_during_a_decryption_is_not_undone_by_it() -> None:
    gate = Gate()
    keyring = ring(gate=gate)
    other = Keyring("default")
    other.load(keyring.snapshot)
    blob = other.local_encrypt(b"x")

    def block_once(ring_: Keyring, encrypting: bool) -> KMSError | None:
        # The first question lets it pass; then the KMS ends use, before the cipher is remembered.
        if len(gate.asked) == 2:
            gate.refusal = SystemShutdownError("ended")
        return gate(ring_, encrypting)

    keyring._gate = block_once
    assert keyring.local_decrypt(blob) == b"x"
    with pytest.raises(SystemShutdownError):
        keyring.local_decrypt(blob)


def test_a_wiped_keyring_has_no_key_bytes_left() -> None:
    gate = Gate()
    keys = [loaded(1), loaded(2)]
    keyring = ring(*keys, gate=gate)
    blob = keyring.local_encrypt(b"x")
    gate.refusal = SystemShutdownError("closed")
    keyring.wipe()
    assert [key.key for key in keys] == [bytearray(32)] * 2
    with pytest.raises(SystemShutdownError):
        keyring.local_encrypt(b"x")
    with pytest.raises(SystemShutdownError):
        keyring.local_decrypt(blob)
    with pytest.raises(SystemShutdownError):
        keyring.needs_reencrypt(blob)


def test_a_key_wiped_between_lookup_and_use_is_not_derived_from() -> None:
    one, two = loaded(1), loaded(2)
    keyring = ring(one, two)
    blob = ring(one).local_encrypt(b"x")

    def disable(ring_: Keyring, encrypting: bool) -> None:
        if calls := ring_._gate.asked:  # type: ignore[attr-defined]
            ring_.snapshot = KeyringSnapshot({two.id: two}, two.id, withheld={one.id: DataKeyState.DISABLED})
            one.wipe()
        calls.append(encrypting)

    disable.asked = []  # type: ignore[attr-defined]
    keyring._gate = disable
    with pytest.raises(KeyStateError, match="disabled"):
        keyring.local_decrypt(blob)


def test_older_versions_are_forgotten_and_newer_ones_kept() -> None:
    one, two, three = loaded(1), loaded(2), loaded(3)
    keyring = Keyring("default")
    keyring.forget_older()
    keyring.load(holding(one, two, three, active=two.id))
    blob = keyring.local_encrypt(b"x")
    keyring.forget_older()
    assert set(keyring.snapshot.keys) == {two.id, three.id}
    assert one.key == bytearray(32)
    assert keyring.local_encrypt(b"y")[:26] == blob[:26]
