"""The devices' room over a manager's store, for the service."""

from __future__ import annotations

from keystead.crypto.keyring import Keyring
from keystead.devices.assembly import Devices
from keystead.devices.ciphertexts import MAX_SIZE
from keystead.devices.identity import IDENTITY_KEYRING, Identity
from keystead.devices.secrets import PEPPER_KEYRING, SecretRules
from keystead.devices.surroundings import DevicePolicy, Surroundings
from keystead.manager.manager import KeyManager
from keystead.model import KeyringPurpose


async def identity(km: KeyManager) -> Identity:
    """Return what signs public keys, its keyring loaded, and made if there is none."""
    return Identity(await _ring(km, IDENTITY_KEYRING, KeyringPurpose.SIGN, "Ed25519"))


async def devices(
    km: KeyManager,
    *,
    policy: DevicePolicy | None = None,
    rules: SecretRules | None = None,
    max_size: int = MAX_SIZE,
) -> Devices:
    """Return the room, the keyring of its peppers loaded, and made if there is none."""
    session = await km.session()
    s = session.surroundings
    pepper = await _ring(km, PEPPER_KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")
    surroundings = Surroundings(
        store=s.store,
        rings=session.live,
        audit=s.audit,
        clock=s.clock,
        random=s.random,
        policy=policy or DevicePolicy(),
    )
    return Devices.over(surroundings, pepper, rules, max_size=max_size)


async def _ring(km: KeyManager, name: str, purpose: KeyringPurpose, algorithm: str) -> Keyring:
    session = await km.session()
    wanted = session.surroundings.new_keyring(name, purpose, algorithm)
    return await session.live.load(name, create=wanted)
