"""What programs and devices of the example do, in its past and while somebody looks."""

from __future__ import annotations

import secrets
from base64 import b64encode
from contextlib import suppress

from keystead.cli.example.cast import LOCKED, PASSCODE, device_of, owner
from keystead.devices.decrypting import Encrypted
from keystead.devices.encrypting import encrypt_data
from keystead.devices.pairs import Purpose
from keystead.errors import DecryptionError
from keystead.manager import admin
from keystead.manager.manager import KeyManager
from keystead.ports import ClientKeyRecord, PairKind, SecretKind
from keystead.server.service import Service
from keystead.transit.encrypting import decrypt, encrypt


class Guests:
    """The users with a device."""

    def __init__(self, service: Service) -> None:
        self._room = service.devices
        self._keys: dict[str, ClientKeyRecord] = {}

    async def join(self, user: str) -> ClientKeyRecord:
        """Return the key pair of a user's device, made if it has none; a device keeps what it was given."""
        if user not in self._keys:
            keys, kind = self._room.keys, kind_of(user)
            self._keys[user] = await keys.generate(owner(user), device_of(user), app_version="4.2.0", kind=kind)
        return self._keys[user]

    async def renew(self, user: str) -> None:
        """Give a user's device a new key pair."""
        keys, kind = self._room.keys, kind_of(user)
        self._keys[user] = await keys.rotate(owner(user), device_of(user), app_version="4.3.0", kind=kind)

    async def send(self, user: str, *, is_good: bool = True) -> None:
        """Send a ciphertext of data to be decrypted; one that is not good opens under no key."""
        key = await self.join(user)
        sealed = encrypt_data(key, b"4 Privet Drive")
        if not is_good:
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        with suppress(DecryptionError):
            await self._room.decrypting.decrypt_data(owner(user), _sent(key, sealed))

    async def set_passcode(self, user: str) -> None:
        """Set a user's passcode."""
        key = await self.join(user)
        sealed = encrypt_data(key, PASSCODE.encode(), purpose=Purpose.PASSCODE)
        await self._room.secrets.set(owner(user), SecretKind.PASSCODE, _sent(key, sealed))

    async def verify(self, user: str, *, is_right: bool = True) -> bool:
        """Verify a user's passcode, or a guess at it; return whether it is the one."""
        key = await self.join(user)
        text = PASSCODE if is_right else secrets.token_hex(4)
        sealed = encrypt_data(key, text.encode(), purpose=Purpose.PASSCODE)
        return (await self._room.secrets.verify(owner(user), SecretKind.PASSCODE, _sent(key, sealed))).is_right


def kind_of(user: str) -> PairKind:
    """Return what key pairs the device of a user has."""
    return PairKind.RSA_2048 if user in ("ada", LOCKED) else PairKind.X25519


async def encrypt_messages(km: KeyManager, keyring: str, count: int) -> None:
    """Encrypt messages under a keyring's active version, and have them counted."""
    handle = await admin.open_keyring(km, keyring)
    for number in range(count):
        handle.local_encrypt(b"an order of three books" * 4, context={"order": str(number)})
    await (await km.session()).uses.flush()


async def transit_use(service: Service, *, count: int = 1) -> None:
    """Encrypt and decrypt by the example's Transit key, and have the audit trail count it."""
    key = await service.transit.keys.open("", "card-numbers")
    for _ in range(count):
        text, _ = encrypt(key, b"4111 1111 1111 1111")
        decrypt(key, text)
    for operation in ("encrypt", "decrypt"):
        service.transit.uses.note(key.record, operation, "checkout", count)


def _sent(key: ClientKeyRecord, sealed: bytes) -> Encrypted:
    return Encrypted(b64encode(sealed).decode(), key.id)
