"""What an endpoint of the wire protocol is given, and how one is declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from starlette.requests import Request

from keystead.access.callers import Caller
from keystead.access.transit_scopes import TransitOperation
from keystead.server.actors import actor_of
from keystead.server.service import Service
from keystead.server.standing import Standing
from keystead.server.vault.answers import VaultAnswer
from keystead.transit.opened import OpenKey

ROOT: Final = "root"
"""Another name of the default tenant."""


class Verb(StrEnum):
    """What is asked of a path. POST and PUT are one; LIST is its own method, or GET with ``list=true``."""

    READ = "read"
    WRITE = "write"
    LIST = "list"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request to what takes no token.

    Attributes:
        namespace: that ``X-Vault-Namespace`` names, without slashes at its ends; empty where it names none.
    """

    http: Request
    standing: Standing[Service]
    namespace: str
    body: dict[str, Any] = field(repr=False)

    @property
    def tenant(self) -> str | None:
        """The tenant that is named; None where none is, empty for the default one by its name."""
        return None if not self.namespace else ("" if self.namespace == ROOT else self.namespace)

    @property
    def service(self) -> Service:
        """The service; what is answered while it is not open does not ask for it."""
        service = self.standing.service
        assert service is not None  # noqa: S101 -- Standby lets nothing else through before
        return service


@dataclass(frozen=True, slots=True)
class VaultRequest:
    """A request of a caller who may do what it asks for.

    Attributes:
        name: of the key, where the path has ``{name}``; else empty.
        body: the parameters; empty where there are none.
        token: the text that showed the caller; empty under ``--dev`` where none was sent.
    """

    http: Request
    service: Service
    caller: Caller
    verb: Verb
    name: str
    body: dict[str, Any] = field(repr=False)
    token: str = field(repr=False, default="")

    async def used(self, key: OpenKey, operation: TransitOperation, count: int = 1) -> None:
        """Tell the audit trail of a use of a key, before its result is answered.

        Raises:
            KMSError: the caller's uses are written one by one, and this one cannot be.
        """
        uses, actor = self.service.transit.uses, actor_of(self.caller)
        if self.caller.is_audited_each:
            await uses.record(key.record, operation, actor, count)
        else:
            uses.note(key.record, operation, actor, count)
            if uses.is_full:
                await uses.flush()

    @property
    def tenant(self) -> str:
        """The tenant of the caller; empty for the default one."""
        return self.caller.principal.tenant

    @property
    def params(self) -> Mapping[str, str]:
        """What the path has for the names in its template."""
        return self.http.path_params

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters."""
        return self.http.query_params


@dataclass(frozen=True, slots=True)
class Way:
    """What answers one verb of a path, for a caller with a token.

    Attributes:
        operation: the operation of the engine that a scope must allow on the key of the path; None: any token will do.
        fields: names of parameters that it reads; others are told in a warning. None: nothing is told.
        captured: names of parameters that the path has: what else is said for one counts for nothing, and is told too.
    """

    answer: Callable[[VaultRequest], Awaitable[VaultAnswer]]
    operation: TransitOperation | None = None
    fields: frozenset[str] | None = None
    captured: frozenset[str] = frozenset({"name"})


@dataclass(frozen=True, slots=True)
class OpenWay:
    """What answers one verb of a path, whoever asks."""

    answer: Callable[[OpenRequest], Awaitable[VaultAnswer]]


@dataclass(frozen=True, slots=True)
class VaultPath:
    """A path and what answers there.

    Attributes:
        template: as Starlette has them, below ``/v1``: ``/transit/keys/{name}``.
    """

    template: str
    read: Way | OpenWay | None = None
    write: Way | OpenWay | None = None
    list: Way | OpenWay | None = None
    delete: Way | OpenWay | None = None

    def way(self, verb: Verb) -> Way | OpenWay | None:
        """Return what answers a verb."""
        found: Way | OpenWay | None = getattr(self, verb.value)
        return found
