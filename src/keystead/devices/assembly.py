"""The devices' room, put together over one store."""

from __future__ import annotations

from dataclasses import dataclass

from keystead.crypto.keyring import Keyring
from keystead.devices.ciphertexts import MAX_SIZE
from keystead.devices.client_keys import ClientKeys
from keystead.devices.decrypting import Decrypting
from keystead.devices.owners import Owners
from keystead.devices.secrets import SecretRules, Secrets
from keystead.devices.surroundings import DevicePolicy, Surroundings
from keystead.devices.upkeep import Upkeep
from keystead.devices.uses import UseCounts


@dataclass(frozen=True, slots=True)
class Devices:
    """Everything that can be asked of devices and of what was encrypted by them."""

    policy: DevicePolicy
    keys: ClientKeys
    decrypting: Decrypting
    secrets: Secrets
    owners: Owners
    upkeep: Upkeep
    uses: UseCounts

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
        keys, uses = ClientKeys(surroundings), UseCounts(surroundings)
        decrypting = Decrypting(surroundings, keys, uses, max_size=max_size)
        secrets = Secrets(surroundings, decrypting, pepper, rules)
        upkeep = Upkeep(surroundings)
        return cls(surroundings.policy, keys, decrypting, secrets, Owners(surroundings), upkeep, uses)
