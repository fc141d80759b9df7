"""Keyrings and data keys as they are told; a key's bytes are nowhere among it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from keystead.lifecycle.destruction import DEFAULT_WAIT, LONGEST_WAIT, SHORTEST_WAIT
from keystead.manager.key_listing import KeyringStanding
from keystead.manager.protected import Protected
from keystead.model import DataKeyState, KeyringPurpose
from keystead.server.rest.shapes import Given, KeyId, Name, Told, whole

_LONGEST_AGE_S = 315_360_000
"""Ten years."""


class Key(Told):
    """A data key: a version of a keyring."""

    id: KeyId
    keyring: str = Field(examples=["default"])
    version: int = Field(ge=1, examples=[3])
    algorithm: str = Field(examples=["AES-256-GCM"])
    state: DataKeyState = Field(description="What it may be used for: docs/spec/key-states.md.")
    created_at: datetime
    activated_at: datetime | None = Field(description="When it became active.")
    rotate_after: datetime | None = Field(description="When it is due to be replaced.")
    expires_at: datetime | None = Field(description="When it encrypts no more.")
    destroy_after: datetime | None = Field(description="When it is destroyed, where that is scheduled.")
    messages: int = Field(description="How much was encrypted under it, as far as it is counted yet.")
    bytes: int
    wrapped_by: KeyId | None = Field(description="The WRAP key that it is wrapped by; null where a KEK wraps it.")
    kek_provider: str | None
    kek_key_id: str | None
    kek_version: str | None
    legacy_version: str | None = Field(description="What its ciphertexts call it, where it was imported.")


class Keyring(Told):
    """A keyring."""

    name: str = Field(examples=["default"])
    purpose: KeyringPurpose = Field(description="What its keys are for.")
    algorithm: str = Field(examples=["AES-256-GCM"])
    created_at: datetime


class KeyringDetail(Keyring):
    """A keyring, and how it stands."""

    active: Key | None = Field(description="The version that encrypts.")
    states: dict[str, int] = Field(
        description="How many versions are in each state that there is.", examples=[{"active": 1, "decrypt-only": 2}]
    )

    @classmethod
    def of(cls, found: KeyringStanding) -> KeyringDetail:
        """Return what is told of a keyring."""
        keyring = found.keyring
        return cls(
            name=keyring.name,
            purpose=keyring.purpose,
            algorithm=keyring.algorithm,
            created_at=keyring.created_at,
            active=None if found.active is None else Key.model_validate(found.active),
            states={state.value: count for state, count in found.states.items()},
        )


class NewKeyring(Given):
    """A keyring to make."""

    name: Name = Field(
        description="Its name; never that of a person.",
        examples=["orders"],
        json_schema_extra={"not": {"pattern": r"^keystead\."}},
    )
    is_for_files: bool = Field(default=False, strict=True, description="For files of any size instead of messages.")


class Rotation(Given):
    """How a keyring is rotated."""

    promote: Literal["auto", "now"] = Field(
        default="auto", description="`now`: do not wait until running processes have loaded the new version."
    )
    min_age_seconds: Annotated[int, Field(ge=0, le=_LONGEST_AGE_S), BeforeValidator(whole)] | None = Field(
        default=None,
        description="Do nothing if the active version is younger.",
        examples=[2_592_000],
    )


class IndexRotation(Told):
    """A rotation of an index key that has begun."""

    key: Key
    waits_for: list[str] = Field(description="Ids of the fields that are to be re-encrypted before it ends.")


class Destruction(Given):
    """How a version is destroyed."""

    wait_seconds: Annotated[
        int,
        Field(ge=int(SHORTEST_WAIT.total_seconds()), le=int(LONGEST_WAIT.total_seconds())),
        BeforeValidator(whole),
    ] = Field(default=int(DEFAULT_WAIT.total_seconds()), description="Until then it can be called off.")
    without_sources: bool = Field(
        default=False,
        strict=True,
        description="You vouch that nothing is encrypted under it, although no data source is declared.",
    )


class Rewrapping(Given):
    """How keys are wrapped again."""

    rotate_kek: bool = Field(
        default=False,
        strict=True,
        description="Have the KMS make a new version of the KEK first. AWS allows this 25 times in a key's whole life.",
    )
    keep_wrap_key: bool = Field(default=False, strict=True, description="Make no new WRAP key first.")


class Rewrapped(Told):
    """What was wrapped again."""

    data_keys: int = Field(description="Data keys that were moved.")
    wrap_keys: int = Field(description="WRAP keys that were moved.")
    skipped: int = Field(description="Keys that changed meanwhile: run it again.")


class VersionCount(Told):
    """How many ciphertexts of a version a source holds."""

    version: int
    ciphertexts: int


class SourceCount(Told):
    """What was found in a data source."""

    name: str
    locator: str
    counts: list[VersionCount] = Field(description="Versions without any are left out.")
    error: str | None = Field(description="Why it could not be looked through; null where it was.")


class Counts(Told):
    """What the newest versions of a keyring still protect, those that are not destroyed."""

    keyring: str
    versions: list[Key] = Field(description="The oldest first.")
    sources: list[SourceCount]

    @classmethod
    def of(cls, found: Protected) -> Counts:
        """Return what is told of it."""
        return cls(
            keyring=found.keyring,
            versions=[Key.model_validate(key) for key in found.versions],
            sources=[
                SourceCount(
                    name=each.use.name,
                    locator=each.use.locator,
                    counts=[VersionCount(version=key, ciphertexts=hits) for key, hits in sorted(each.counts.items())],
                    error=each.error,
                )
                for each in found.sources
            ],
        )


class Use(Told):
    """A data source: where ciphertexts of a keyring lie."""

    keyring: str = Field(description="A keyring, or a pattern such as `people-{tenant}`.", examples=["default"])
    name: str = Field(examples=["people"])
    locator: str = Field(examples=["sql:postgresql://db.example.org/app#people.email"])


class Kek(Told):
    """A KEK that is needed to open the store."""

    provider: str
    key_id: str
    version: str | None
    wrap_keys: int = Field(description="How many WRAP keys it wraps.")


class Status(Told):
    """How the store stands."""

    store_id: str
    epoch: int
    is_restored: bool = Field(description="It decrypts only, until it is recovered on the machine.")
    keyrings: int
    nodes: int = Field(description="Processes that run over it.")
    keys: dict[str, int] = Field(description="How many data keys are in each state that there is.")
    keks: list[Kek]
    next_rotation: datetime | None
    pending_destroy: list[Key] = Field(description="The first of the data keys that are to be destroyed.")
    missing_wraps: dict[str, int] = Field(description="How many WRAP keys lack the wrap of a KEK.")
