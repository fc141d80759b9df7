"""The devices' room, put together over one store."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.devices.ciphertexts import MAX_SIZE
from keystead.devices.client_keys import ClientKeys
from keystead.devices.decrypting import Decrypting
from keystead.devices.lockouts import Lockouts
from keystead.devices.metrics import Metrics
from keystead.devices.owners import Owners
from keystead.devices.secrets import SecretRules, Secrets
from keystead.devices.summary import Summaries
from keystead.devices.surroundings import DevicePolicy, Surroundings
from keystead.devices.upkeep import Upkeep
from keystead.devices.uses import UseCounts

_DEVICES: Final = b"keystead device ids in summaries"


@dataclass(frozen=True, slots=True)
class Devices:
    """Everything that can be asked of devices and of what was encrypted by them."""

    policy: DevicePolicy
    keys: ClientKeys
    decrypting: Decrypting
    secrets: Secrets
    lockouts: Lockouts
    owners: Owners
    upkeep: Upkeep
    uses: UseCounts
    metrics: Metrics
    summaries: Summaries

    @classmethod
    def over(
        cls,
        surroundings: Surroundings,
        pepper: Keyring,
        rules: SecretRules | None = None,
        *,
        max_size: int = MAX_SIZE,
    ) -> Devices:
        """Put the room together; see ``Decrypting`` and ``Secrets`` for the arguments."""
        s = surroundings
        metrics = Metrics(s.store, s.clock, random=s.random)
        keys, uses = ClientKeys(s, metrics), UseCounts(s)
        decrypting = Decrypting(s, keys, uses, metrics, max_size=max_size)
        rules = rules or SecretRules()
        secrets, lockouts = Secrets(s, decrypting, pepper, rules), Lockouts(s, rules.lockout)
        # Another pepper gives the devices in summaries other names, and nothing else.
        summaries = Summaries(s.store, s.clock, hmac.digest(bytes(pepper.get_active().key), _DEVICES, "sha256"))
        return cls(s.policy, keys, decrypting, secrets, lockouts, Owners(s), Upkeep(s), uses, metrics, summaries)
