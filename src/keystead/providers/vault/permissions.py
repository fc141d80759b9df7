"""What a token may do with a key, from what the server says of its policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keystead.ports import Clock
from keystead.providers.vault.client import VaultClient
from keystead.providers.vault.keys import Key

_UPDATES: Final[Mapping[str, tuple[str, ...]]] = {
    "encrypt": ("encrypt",),
    "encrypt_batch": ("encrypt",),
    "decrypt": ("decrypt",),
    "generate_data_key": ("datakey/plaintext",),
    "rewrap": ("rewrap",),
    "rotate_key": ("rotate",),
    "describe": (),
    "get_rotation_policy": (),
    "is_extractable": (),
    "mac": ("hmac",),
    "mac_batch": ("hmac",),
    "verify_mac": ("verify",),
    "sign": ("sign",),
    "sign_batch": ("sign",),
    "public_key": (),
}
"""The operations whose path must allow ``update``, for each of ours."""

_READ_NO_KEY: Final = frozenset({"mac", "mac_batch", "verify_mac"})


def permissions(key: Key, client: VaultClient, clock: Clock) -> Mapping[str, bool]:
    """Ask the server what the policies allow, and return it by the names of our operations; blocks."""
    paths = sorted({key.path("keys"), *(_path(key, verb) for verbs in _UPDATES.values() for verb in verbs)})
    capabilities = client.do("capabilities", "sys/capabilities-self", {"paths": paths}).data

    def has(path: str, capability: str) -> bool:
        given = capabilities.get(path)
        return isinstance(given, list) and bool({"root", capability} & set(given))

    reads = has(key.path("keys"), "read")
    needs = dict(_UPDATES)
    if reads and not key.info(client, clock).is_derived:
        needs |= {"rewrap": ("decrypt", "encrypt"), "generate_data_key": ("encrypt",)}
    return {
        operation: (reads or operation in _READ_NO_KEY) and all(has(_path(key, verb), "update") for verb in verbs)
        for operation, verbs in needs.items()
    }


def _path(key: Key, verb: str) -> str:
    return f"{key.path('keys')}/rotate" if verb == "rotate" else key.path(verb)
