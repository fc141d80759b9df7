"""The devices' room over a manager's store, for the service."""

from __future__ import annotations

from keystead.devices.assembly import Devices
from keystead.devices.ciphertexts import MAX_SIZE
from keystead.devices.secrets import PEPPER_KEYRING, SecretRules
from keystead.devices.surroundings import DevicePolicy, Surroundings
from keystead.manager.manager import KeyManager
from keystead.model import KeyringPurpose


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
    wanted = s.new_keyring(PEPPER_KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")
    pepper = await session.live.load(PEPPER_KEYRING, create=wanted)
    surroundings = Surroundings(
        store=s.store,
        rings=session.live,
        audit=s.audit,
        clock=s.clock,
        random=s.random,
        policy=policy or DevicePolicy(),
    )
    return Devices.over(surroundings, pepper, rules, max_size=max_size)
