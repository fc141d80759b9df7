"""What a signer is told besides its key: for how long keys count, what they are for, whom to tell of their use."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, TypeVar

from keystead.crypto.context import check_context
from keystead.errors import InvalidInputError, KMSError
from keystead.ledger.signers.cache import Terms
from keystead.model import KeyReference, SignatureAlgorithm
from keystead.ports import AuditEvent, Clock, Random
from keystead.runtime.clock import SystemClock

T = TypeVar("T")

AuditHook: TypeAlias = Callable[[AuditEvent], None]
"""Told of each use of a key that a KMS or a file had part in. It must not block; what it raises ends the call."""

DEFAULT_TTL_S: Final = 300.0
DEFAULT_GRACE_S: Final = 3600.0

log = logging.getLogger("keystead.ledger")


@dataclass(frozen=True, slots=True)
class SignerSettings:
    """How a signer works.

    Args:
        ttl_s: how long a key, and what is known of it, counts before the KMS is asked again.
        grace_s: how much longer it is used while the KMS does not answer; None is for ever. Denied, disabled and
            destroyed keys end at once.
        use_kms_signing: have the KMS itself sign, with a key that can. Keys that only sign, or only make MACs, do so
            without being told.
        stream: the name of what is signed for, bound to session keys.
        context: more that session keys are bound to.
        trusted_key_ids: further keys that signatures are verified by, and may be made with by name: former ones,
            those that an alias named before it was moved.
        batch: how many messages are signed where the KMS takes one at a time: ``merkle`` signs a tree over them once,
            ``each`` makes a call for each, ``concurrency`` of them at once.
        algorithm: what has to be signed with; None is the key's own choice.
        audit: told of gets, unwraps, refreshes, rotations and the KMS's own signatures; never of MACs made here.

    Raises:
        InvalidInputError: times below zero, no concurrency, or a context that cannot be.
    """

    ttl_s: float = DEFAULT_TTL_S
    grace_s: float | None = DEFAULT_GRACE_S
    use_kms_signing: bool = False
    stream: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    trusted_key_ids: tuple[str, ...] = ()
    batch: Literal["merkle", "each"] = "merkle"
    concurrency: int = 8
    algorithm: SignatureAlgorithm | None = None
    audit: AuditHook | None = None
    clock: Clock = field(default_factory=SystemClock)
    random: Random = os.urandom

    def __post_init__(self) -> None:
        if not self.ttl_s >= 0 or (self.grace_s is not None and not self.grace_s >= 0):
            raise InvalidInputError("ttl_s and grace_s are seconds, from 0 on; grace_s None is for ever")
        if self.concurrency < 1 or self.batch not in {"merkle", "each"}:
            raise InvalidInputError("batch is 'merkle' or 'each', and concurrency at least 1")
        object.__setattr__(self, "context", MappingProxyType(check_context(self.context)))

    @property
    def terms(self) -> Terms:
        """For how long keys count."""
        return Terms(self.clock, self.ttl_s, self.grace_s)

    def session_context(self) -> dict[str, str]:
        """Return what session keys are bound to."""
        named = {"keystead.stream": self.stream} if self.stream else {}
        return {**self.context, "keystead.purpose": "session", **named}


@dataclass(frozen=True, slots=True)
class NamedSignature:
    """A signature, and the id of the version of the key that made it, to be recorded beside it."""

    signature: bytes
    key_id: str


class KeyAudit:
    """Tells the log and the hook what a key was used for: key id, version and outcome, and nothing that is secret."""

    def __init__(self, source: str, hook: AuditHook | None) -> None:
        self._source = source
        self._hook = hook

    def tell(
        self, action: str, key_id: str, version: str | None, outcome: str = "ok", *, count: int | None = None
    ) -> None:
        """Tell of one use. ``count`` is how many messages it was for, where that is not one."""
        details = {"source": self._source, "key": key_id, "version": version, "outcome": outcome}
        if count is not None:
            details["count"] = str(count)
        level = logging.INFO if outcome == "ok" else logging.WARNING
        fields = {"source": self._source, "key_id": key_id, "key_version": version, "outcome": outcome, "count": count}
        log.log(level, "key used: %s", action, extra=fields)
        if self._hook is not None:
            self._hook(AuditEvent(action, details=details))

    async def told(
        self,
        action: str,
        key_id: str,
        call: Callable[[], Awaitable[T]],
        version_of: Callable[[T], str | None],
        *,
        count: int | None = None,
    ) -> T:
        """Make a call and tell of it, however it ends."""
        try:
            result = await call()
        except KMSError as exc:
            self.tell(action, key_id, None, exc.code, count=count)
            raise
        self.tell(action, key_id, version_of(result), count=count)
        return result


SEPARATORS: Final[Mapping[str, str]] = {"azure": "/", "gcp": "/cryptoKeyVersions/"}
"""What stands between key and version in the id of a version, where a service has a form of its own for it."""
FINGERPRINT: Final = "#"


@dataclass(frozen=True, slots=True)
class IdForm:
    """How the id of one version of a key is written; see section 6 of the specification."""

    separator: str = FINGERPRINT

    @classmethod
    def of(cls, provider_name: str) -> IdForm:
        """Return a provider's."""
        return cls(SEPARATORS.get(provider_name, FINGERPRINT))

    @property
    def is_known_to_the_service(self) -> bool:
        """Whether the service can be asked by such an id."""
        return self.separator != FINGERPRINT

    def join(self, key_id: str, version: str | None) -> str:
        """Return the id of a version."""
        return key_id if version is None else f"{key_id}{self.separator}{version}"

    def of_reference(self, reference: KeyReference) -> str:
        """Return the id of the version that a KMS has answered with."""
        return self.join(reference.key_id, reference.key_version)

    def version_of(self, key_id: str, known: str) -> str | None:
        """Return the version of ``known`` that ``key_id`` names; None where it names none."""
        version = key_id.removeprefix(f"{known}{self.separator}")
        return version if version and version != key_id else None

    def split(self, key_id: str) -> tuple[str, str | None]:
        """Return key and version of an id whose key is not known; the version is None where none is set apart."""
        base, mark, version = key_id.rpartition(self.separator)
        return (base, version) if mark and base and version else (key_id, None)
