"""The devices' room of a node, with pairs that are made at once, and what clients send it."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from keystead.devices.assembly import Devices
from keystead.devices.client_keys import ClientKeys
from keystead.devices.decrypting import Encrypted
from keystead.devices.hashing import Cost
from keystead.devices.metrics import Metrics
from keystead.devices.pairs import ALGORITHMS, Algorithm, Pair, Purpose, binding, encrypt_to, make_pair
from keystead.devices.secrets import PEPPER_KEYRING, Authority, SecretRules, Verdict
from keystead.devices.surroundings import DevicePolicy, Surroundings
from keystead.devices.upkeep import Upkeep
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState, KeyringPurpose, Principal
from keystead.ports import ClientKeyRecord, CredentialRecord, PairKind, SecretKind
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled

QUICK = DevicePolicy(kind=PairKind.X25519)


ADA, BOB = Principal("ada"), Principal("bob")
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
CODE, PIN = SecretKind.PASSCODE, SecretKind.TRANSACTION_PIN
PURPOSES = {CODE: Purpose.PASSCODE, PIN: Purpose.TRANSACTION_PIN}
MINUTE = timedelta(minutes=1)


class Maker:
    """Makes pairs, and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, kind: PairKind) -> Pair:
        self.made += 1
        return make_pair(kind)


CHEAP = SecretRules(cost=Cost(memory_kib=8, iterations=1))


async def surroundings(km: KeyManager, policy: DevicePolicy = QUICK, **options: Any) -> Surroundings:
    """Return what the devices' room works with, on a node of the service."""
    session = await km.session()
    s = session.surroundings
    await session.live.sealing_ring("keystead.wrap")
    given: dict[str, Any] = {"store": s.store, "audit": s.audit, "clock": s.clock, "random": s.random}
    return Surroundings(rings=session.live, policy=policy, **(given | options))


async def client_keys(km: KeyManager, policy: DevicePolicy = QUICK, **options: Any) -> ClientKeys:
    """Return the key pairs of devices, as a node of the service has them."""
    s = await surroundings(km, policy, **options)
    return ClientKeys(s, Metrics(s.store, s.clock))


async def upkeep(km: KeyManager, policy: DevicePolicy = QUICK, **options: Any) -> Upkeep:
    """Return the upkeep of a node."""
    return Upkeep(await surroundings(km, policy, **options))


async def devices(km: KeyManager, policy: DevicePolicy = QUICK, rules: SecretRules = CHEAP, **options: Any) -> Devices:
    """Return the whole room of a node."""
    s = await surroundings(km, policy, **options)
    session = await km.session()
    made = session.surroundings.new_keyring(PEPPER_KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")
    return Devices.over(s, await session.live.load(PEPPER_KEYRING, create=made), rules)


def encrypted(
    key: ClientKeyRecord,
    secret: str | bytes,
    purpose: Purpose = Purpose.PASSCODE,
    *,
    algorithm: Algorithm | None = None,
    payload_version: int = 1,
) -> Encrypted:
    """Encrypt as a client does."""
    public = load_pem_public_key(key.public_key.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    info = binding(key.id, key.device_id, purpose)
    plaintext = secret.encode() if isinstance(secret, str) else secret
    ciphertext = encrypt_to(public, plaintext, algorithm or ALGORITHMS[key.kind][0], info)
    return Encrypted(base64.b64encode(ciphertext).decode(), key.id, algorithm, payload_version)


async def opens(keys: ClientKeys, who: Principal, key: ClientKeyRecord) -> bool:
    opened = await keys.open(await keys.find(who, key.id))
    sent = encrypted(key, "secret")
    info = binding(key.id, key.device_id, Purpose.PASSCODE)
    return opened.open(base64.b64decode(sent.text), ALGORITHMS[key.kind][0], info) == b"secret"


async def later(km: KeyManager, clock: FakeClock, by: timedelta) -> None:
    """Let time pass, and the node look at its store and KMS."""
    clock.advance(by)
    await polled(km)


async def disable_wrap(world: World, km: KeyManager, key: ClientKeyRecord) -> None:
    """Take the WRAP key of a pair out of use, and another one into it."""
    session = await km.session()
    await session.lifecycle.rewrap.run()
    async with world.store.transaction() as work:
        row = await work.find_key(key.wrapped_by or 0)
        assert row is not None
        epoch = await work.bump_epoch()
        await work.change_key(row.id, row.state, state=DataKeyState.DISABLED, published_epoch=epoch)
    await session.poll()


class Client:
    """A device of a user: has a key, and encrypts to it."""

    def __init__(self, room: Devices, key: ClientKeyRecord, who: Principal = ADA) -> None:
        self.room, self.key, self.who = room, key, who

    @classmethod
    async def of(cls, room: Devices, who: Principal = ADA, device: str = "phone") -> Client:
        return cls(room, await room.keys.generate(who, device), who)

    def on(self, room: Devices) -> Client:
        """Return the same device, connected to another node."""
        return Client(room, self.key, self.who)

    def sealed(self, secret: str, kind: SecretKind = CODE) -> Encrypted:
        return encrypted(self.key, secret, PURPOSES[kind])

    async def set(
        self, secret: str, kind: SecretKind = CODE, *, current: str | None = None, authority: Authority = Authority.NONE
    ) -> None:
        given = None if current is None else self.sealed(current, kind)
        await self.room.secrets.set(self.who, kind, self.sealed(secret, kind), current=given, authority=authority)

    async def verify(self, secret: str, kind: SecretKind = CODE) -> Verdict:
        return await self.room.secrets.verify(self.who, kind, self.sealed(secret, kind))

    async def is_right(self, secret: str, kind: SecretKind = CODE) -> bool:
        return (await self.verify(secret, kind)).is_right


async def kept(world: World, kind: SecretKind = CODE, user: str = "ada") -> CredentialRecord:
    async with world.store.reading() as work:
        found = await work.find_credential("", user, kind)
    assert found is not None
    return found
