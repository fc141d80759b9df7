"""What a test needs of a server: where it is, and who may do what with which keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from tests.transit.replay.wire import Answer, Request


class Operation(StrEnum):
    """What somebody may be allowed with keys, by the names that Transit's paths have."""

    CREATE = "create"
    READ = "read"
    LIST = "list"
    CONFIGURE = "config"
    ROTATE = "rotate"
    TRIM = "trim"
    DELETE = "delete"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    REWRAP = "rewrap"
    DATAKEY = "datakey"
    HMAC = "hmac"
    SIGN = "sign"
    VERIFY = "verify"
    RANDOM = "random"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class Grant:
    """One operation on the keys that a pattern names, in which ``*`` is any text; any key where it is ``*`` alone."""

    operation: Operation
    keys: str = "*"


@dataclass(frozen=True, slots=True)
class AppRole:
    """What a program logs in with."""

    role_id: str
    secret_id: str


class Server(Protocol):
    """A server that speaks Transit, and whoever may do everything there."""

    @property
    def url(self) -> str:
        """Where it is, without a path."""

    @property
    def root_token(self) -> str:
        """A token that may do everything."""


class Stage(Server, Protocol):
    """A server that scenarios are played on."""

    def translated(self, request: Request) -> Request | Answer:
        """Do what a recorded request of an administrator is for, where this server has another way to do it.

        Return the answer as the recorded server's would be; or the request that is to be sent, with this server's ids.
        """


class Target(Stage, Protocol):
    """A server for one test, in which nothing is there yet, with an administrator."""

    @property
    def name(self) -> str:
        """What it is."""

    def mount(self) -> None:
        """See that Transit is at ``transit/``."""

    def new_token(self, grants: Sequence[Grant]) -> str:
        """Return a token that may do what the grants say and nothing else."""

    def new_app_role(self, name: str, grants: Sequence[Grant], **options: Any) -> AppRole:
        """Make a role of AppRole at ``auth/approle`` and return what logs in with it; options are as OpenBao's."""

    def new_jwt_role(self, name: str, grants: Sequence[Grant], *, issuer: str, keys: Sequence[str],
                     bound: Mapping[str, Any]) -> None:  # fmt: skip
        """Make a role at ``auth/jwt`` for the tokens of an issuer, whose public keys are PEM texts."""
