"""Which keys of a KMS a signer serves, and what the KMS says of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from keystead.errors import KeyNotFoundError, KeyStateError, ProviderAuthError
from keystead.ledger.signers.cache import Confirmed
from keystead.ledger.signers.settings import IdForm, KeyAudit, SignerSettings
from keystead.model import KeyDescription, KeyState
from keystead.ports import DescribesKeys, KmsProvider


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key that was asked for.

    Attributes:
        key_id: the configured id it belongs to.
        version: what to ask the KMS by, key id and version, where one version was meant; None means whichever.
    """

    key_id: str
    version: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Described:
    """What a KMS says of a key; None where it does not describe keys, or denies that to us."""

    description: KeyDescription | None
    is_denied: bool = False

    @property
    def identity(self) -> tuple[str, str | None] | None:
        """Key id and version as the KMS answers them: another one means that the key was rotated."""
        if self.description is None:
            return None
        return self.description.key_reference.key_id, self.description.current_version


class ServedKeys:
    """The signer's own key, and the trusted ones. An id that leads to none of them is refused, wherever it is from."""

    def __init__(self, provider: KmsProvider, key_id: str, settings: SignerSettings, audit: KeyAudit) -> None:
        self._provider = provider
        self._audit = audit
        self.form = IdForm.of(provider.provider_name)
        self.ids = tuple(dict.fromkeys((key_id, *settings.trusted_key_ids)))
        self._described = {each: Confirmed(self._asking(each), settings.terms) for each in self.ids}
        self._seen: dict[str, str] = {}
        self._baselines: dict[str, tuple[str, str | None]] = {}

    @property
    def own(self) -> str:
        """The id that was configured to sign by."""
        return self.ids[0]

    async def describe(self, key_id: str, *, fresh: bool = False) -> Described:
        """Return what the KMS says of a configured key, as it said within the time that counts unless ``fresh``.

        Raises:
            KeyNotFoundError: there is no such key.
            ProviderConnectionError: no answer.
        """
        described = self._described[key_id]
        return await (described.refresh() if fresh else described.get())

    async def describe_enabled(self, key_id: str) -> Described:
        """Return what ``describe`` does, of a key that may be used.

        Raises:
            KeyStateError: the KMS says that it is not enabled.
        """
        described = await self.describe(key_id)
        description = described.description
        if description is not None and description.state is not KeyState.ENABLED:
            # Nobody goes on to believe that for longer than this call.
            self._described[key_id].expire()
            state = description.state.replace("_", " ")
            raise KeyStateError(f"the key {description.key_reference.key_id} is {state}")
        return described

    async def find(self, key_id: str | None) -> NamedKey:
        """Return the key that an id names; None is the signer's own.

        Raises:
            KeyNotFoundError: it names none of the configured ones.
            ProviderConnectionError: the KMS had to be asked, and did not answer.
        """
        if key_id is None or key_id in self.ids:
            return NamedKey(self.own if key_id is None else key_id)
        for known in self.ids:
            if (version := self.form.version_of(key_id, known)) is not None:
                return NamedKey(known, (known, version))
        for answered, known in self._seen.items():
            if key_id == answered or self.form.version_of(key_id, answered) is not None:
                return NamedKey(known, (answered, self.form.version_of(key_id, answered)))
        for known in self.ids:
            identity = (await self.describe(known)).identity
            if identity is None:
                continue
            answered, current = identity
            if (version := self.form.version_of(key_id, answered)) is not None:
                return NamedKey(known, (answered, version))
            if key_id == answered:
                # Without versions of its own, what the KMS answers is the version: an ARN behind an alias.
                return NamedKey(known, None if current is not None else (answered, None))
        raise KeyNotFoundError(
            f"the key {key_id!r} is not the configured one ({self.own!r}), nor a trusted one: name it in "
            "trusted_key_ids if what it signed is to be believed"
        )

    def meant(self, named: NamedKey) -> list[NamedKey]:
        """Return the keys that a name stands for in verifying: the signer's own id for every trusted one as well."""
        if named != NamedKey(self.own):
            return [named]
        return [NamedKey(each) for each in self.ids]

    def pin(self, key_id: str, described: Described) -> str:
        """Return the id that has the KMS use the version it was described with, as far as its ids can say that."""
        if described.identity is None:
            return key_id
        answered, version = described.identity
        return self.form.join(answered, version) if self.form.is_known_to_the_service else answered

    def note(self, key_id: str, answered: str) -> None:
        """Remember under which id the KMS has used a configured key."""
        self._seen[answered] = key_id

    def compare(self, key_id: str, signed_by: str) -> None:
        """Have the KMS asked again where a key has signed by another version than it was described with."""
        described = self._described[key_id]
        known = described.known
        if known is not None and known.identity is not None and self.form.join(*known.identity) != signed_by:
            described.expire()

    async def has_rotated(self) -> bool:
        """Whether the KMS now says another version of a key in use than when this was asked last, or at first."""
        rotated = False
        for key_id, described in self._described.items():
            if key_id != self.own and described.known is None:
                continue
            known = self._baselines.get(key_id)
            identity = (await self.describe(key_id, fresh=True)).identity
            if identity is not None:
                rotated |= known not in (None, identity)
                self._baselines[key_id] = identity
        return rotated

    def close(self) -> None:
        """Forget everything."""
        for described in self._described.values():
            described.close()

    def _asking(self, key_id: str) -> Callable[[Described | None], Coroutine[Any, Any, Described]]:
        async def ask(before: Described | None) -> Described:
            told = await self._ask(key_id)
            if before is not None and told.identity == before.identity:
                return told
            if told.identity is not None:
                self._baselines.setdefault(key_id, told.identity)
                if before is not None and before.identity is not None:
                    answered, version = told.identity
                    self._audit.tell("key.rotate", self.form.join(answered, version), version)
            return told

        return ask

    async def _ask(self, key_id: str) -> Described:
        if not isinstance(self._provider, DescribesKeys):
            return Described(None)
        try:
            return Described(await self._provider.describe(key_id))
        except ProviderAuthError:
            # Whoever may only draw keys, and not describe one, is not told of rotations, and can do without.
            return Described(None, is_denied=True)
