"""The members of a set of KEKs: each behind its guard, with the key id it knows the set's key by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final, Literal, TypeAlias

from keystead.errors import ConfigurationError, EncryptionError
from keystead.model import EncryptedData, KeyDescription, KeyReference, SecretBytes
from keystead.ports import Clock, DescribesKeys, KmsProvider, Random, RotatesKeys
from keystead.providers.guard import GuardedProvider
from keystead.providers.multi.calls import Answers, Call, ask_all
from keystead.providers.multi.format import (
    MAX_WRAPS,
    Container,
    Content,
    Wrap,
    is_name,
    set_text,
    with_commitment,
)
from keystead.providers.registry import default_key_id_of
from keystead.providers.uri import MEMBER_OPTION, ProviderUri
from keystead.runtime.off_loop import compute

Policy: TypeAlias = Literal["all", "any"] | int

KIND: Final = "multi"
DEFAULT_KEY_ID: Final = "default"
_MOST_NAMED: Final = 100


class Members:
    """See ``MultiKMSProvider``, whose arguments these are.

    Raises:
        ConfigurationError: as ``MultiKMSProvider``.
    """

    def __init__(
        self,
        providers: Mapping[str, KmsProvider],
        policy: Policy,
        key_ids: Mapping[str, str],
        *,
        deadline_s: float,
        clock: Clock,
        random: Random = os.urandom,
    ) -> None:
        _check(providers, key_ids)
        self.needed = _needed(policy, len(providers))
        self.policy = policy
        self.guards = {
            name: GuardedProvider(provider, name, clock=clock, deadline_s=deadline_s, random=random)
            for name, provider in providers.items()
        }
        self.is_ephemeral = any(getattr(provider, "is_ephemeral", False) for provider in providers.values())
        defaults = {name: default_key_id_of(provider) for name, provider in providers.items()}
        self._key_ids = {**defaults, **key_ids}

    def key_id(self, name: str, asked: str) -> str:
        """Return the key id by which a member knows the key that is asked for.

        Raises:
            ConfigurationError: the default is asked for, and the member has none.
        """
        found = self._key_ids[name] if asked == DEFAULT_KEY_ID else asked
        if found is None:
            raise ConfigurationError(f"member {name!r} has no key id: put it into its URI, or name it in key_ids=")
        return found

    async def wrap(
        self,
        content: Content,
        names: Iterable[str],
        asked: str,
        context: Mapping[str, str],
        *,
        needed: int,
        patience_s: float,
    ) -> Answers[Wrap]:
        """Have each of ``names`` wrap a content key; see ``ask_all``."""
        bound = with_commitment(context, content.commitment)
        calls = {name: partial(self._wrap, name, content.key, self.key_id(name, asked), bound) for name in names}
        return await ask_all(calls, needed=needed, patience_s=patience_s)

    def openings(
        self, container: Container, encrypted: EncryptedData, context: Mapping[str, str]
    ) -> dict[str, Call[Content]]:
        """Return for each member with a wrap in ``container`` the call that opens it."""
        there = container.by_name()
        bound = with_commitment(context, container.commitment)
        return {
            name: partial(self._open, container, there[name], encrypted, context, bound)
            for name in self.guards
            if name in there
        }

    def descriptions(self, asked: str) -> dict[str, Call[KeyDescription]]:
        """Return for each member that can describe its key the call that does."""
        return {
            name: partial(guard.describe, self.key_id(name, asked))
            for name, guard in self.guards.items()
            if isinstance(guard, DescribesKeys)
        }

    def rotations(self, asked: str) -> dict[str, Call[KeyReference]]:
        """Return for each member that can rotate its key the call that does."""
        return {
            name: partial(guard.rotate_key, self.key_id(name, asked))
            for name, guard in self.guards.items()
            if isinstance(guard, RotatesKeys)
        }

    def reference(self, asked: str, told: Mapping[str, tuple[str, str | None]]) -> KeyReference:
        """Return the set's reference; of a member that told nothing of its key, the key id it is asked by."""
        keys = {name: told.get(name) or (self.key_id(name, asked), None) for name in self.guards}
        return KeyReference(
            provider=KIND,
            key_id=set_text((name, key_id) for name, (key_id, _) in keys.items()),
            key_alias=asked,
            key_version=set_text((name, version or "") for name, (_, version) in keys.items()),
        )

    async def _wrap(self, name: str, key: SecretBytes, key_id: str, bound: Mapping[str, str]) -> Wrap:
        sealed = await self.guards[name].encrypt(key, key_id, context=bound)
        reference = sealed.key_reference
        if not reference.key_id or not sealed.ciphertext:
            raise EncryptionError("it answered without a ciphertext, or without saying under which key")
        return Wrap(name, reference.key_id, reference.key_version or "", sealed.algorithm, sealed.ciphertext)

    async def _open(
        self,
        container: Container,
        wrap: Wrap,
        encrypted: EncryptedData,
        context: Mapping[str, str],
        bound: Mapping[str, str],
    ) -> Content:
        reference = KeyReference(wrap.name, wrap.key_id, key_version=wrap.key_version or None)
        sealed = EncryptedData(wrap.wrapped_key, reference, wrap.algorithm, encrypted.encrypted_at, bound)
        key = SecretBytes(await self.guards[wrap.name].decrypt(sealed, context=bound))
        return await compute(len(container.body), lambda: container.open(key, context))


def read_uri(uri: ProviderUri) -> tuple[dict[str, str], Policy]:
    """Return the members that a ``multi:`` URI names, each with its own URI, and the policy.

    Raises:
        ConfigurationError: a URI of another form.
    """
    options = uri.options
    named = {name.removeprefix(MEMBER_OPTION): options[name] for name in options if name.startswith(MEMBER_OPTION)}
    uri.require_options({"policy", *(MEMBER_OPTION + name for name in named or ("NAME",))})
    if uri.body.strip("/") or not named:
        raise ConfigurationError(
            "multi: names its members by options, each a percent-encoded URI, as in "
            "multi:?policy=all&kek.home=file%3A%2Fetc%2Fkeystead%2Fkek&kek.cloud=awskms%3A%2F%2F%2Falias%2Fapp"
        )
    text = uri.options.get("policy", "all")
    policy: Policy = "any" if text == "any" else "all" if text == "all" else 0
    return named, int(text) if text.isdecimal() and text.isascii() else policy


def _check(providers: Mapping[str, KmsProvider], key_ids: Mapping[str, str]) -> None:
    if not 1 <= len(providers) <= MAX_WRAPS:
        raise ConfigurationError(f"a set of KEKs has 1 to {MAX_WRAPS} members")
    for name, provider in providers.items():
        if not is_name(name) or len(name) > _MOST_NAMED:
            raise ConfigurationError(f"a member's name has 1 to {_MOST_NAMED} characters and no colon")
        if provider.provider_name == KIND:
            raise nested(name)
    if unknown := sorted(set(key_ids) - set(providers)):
        raise ConfigurationError(f"key_ids= names {unknown[0]!r}, which is no member")


def nested(name: str) -> ConfigurationError:
    """Return what is said of a member that is a set itself."""
    return ConfigurationError(f"member {name!r} is a set of KEKs itself; name its members here instead")


def _needed(policy: Policy, count: int) -> int:
    if policy == "all":
        return count
    if policy == "any":
        return 1
    if not isinstance(policy, int) or isinstance(policy, bool) or not 1 <= policy <= count:
        raise ConfigurationError(f"the policy is all, any, or how many of the {count} members have to wrap")
    return policy
