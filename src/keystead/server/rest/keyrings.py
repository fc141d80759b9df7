"""``/v1/keyrings``: keyrings, and where their ciphertexts lie. The words are those of ``keystead key``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response

from keystead.access.callers import Scope
from keystead.manager import admin
from keystead.manager.key_listing import keyring_standing, keyrings_after
from keystead.manager.protected import protected
from keystead.server.admin import Admin
from keystead.server.rest.answers import ABSENT, CONFLICT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.key_shapes import (
    Counts,
    IndexRotation,
    Key,
    Keyring,
    KeyringDetail,
    NewKeyring,
    Rotation,
    Use,
)
from keystead.server.rest.paths import KEYRING_WORDS
from keystead.server.rest.shapes import LIMIT, Cursor, KeyringPath, Limit, Name, Page, page_of, part_of, place_of

_TAGS: Final[list[str | Enum]] = ["keyrings"]
Reads = Annotated[Admin, Depends(Needs(Scope.KEYRINGS_READ, is_of_store=True))]
Writes = Annotated[Admin, Depends(Needs(Scope.KEYRINGS_WRITE, is_of_store=True))]
_UseKeyring = Annotated[Name, Query(description="The keyring, or the pattern, that it is declared for.")]
_UseName = Annotated[Name, Query(description="What the source is called.")]


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/keyrings", tags=_TAGS, operation_id="listKeyrings")(list_keyrings)
    router.post("/keyrings", tags=_TAGS, operation_id="createKeyring", status_code=201, responses=answers(CONFLICT))(
        create_keyring
    )
    router.get("/keyrings/{keyring:keyring}", tags=_TAGS, operation_id="showKeyring", responses=answers(ABSENT))(
        show_keyring
    )
    changing = answers(ABSENT, CONFLICT)
    changes: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("rotateKeyring", rotate),
        ("rotateIndexKey", rotate_index),
        ("abandonIndexRotation", abandon_index_rotation),
        ("countKeyUses", count_uses),
    )
    for word, (operation, function) in zip(KEYRING_WORDS, changes, strict=True):
        path = f"/keyrings/{{keyring:name}}/{word}"
        router.post(path, tags=_TAGS, operation_id=operation, responses=changing)(function)
    router.get("/key-uses", tags=_TAGS, operation_id="listKeyUses", responses=answers(ABSENT))(list_uses)
    router.delete(
        "/key-uses", tags=_TAGS, operation_id="removeKeyUse", status_code=204, responses=answers(ABSENT, CONFLICT)
    )(remove_use)


async def list_keyrings(by: Reads, limit: Limit = LIMIT, cursor: Cursor = None) -> Page[Keyring]:
    """List keyrings by name, those of the store's own among them: their names begin with `keystead.`."""
    (after,) = place_of(cursor, str) or ("",)
    found = await keyrings_after(by.manager, after, limit=limit + 1)
    shown, behind = page_of(found, limit, lambda each: (each.name,))
    return Page(items=[Keyring.model_validate(each) for each in shown], next_cursor=behind)


async def create_keyring(by: Writes, given: NewKeyring, response: Response) -> Key:
    """Make a keyring with a first data key; one that exists already is left as it is."""
    key = await admin.create_keyring(by.manager, given.name, is_for_files=given.is_for_files)
    response.headers["Location"] = f"/v1/keyrings/{quote(key.keyring, safe='')}"
    return Key.model_validate(key)


async def show_keyring(by: Reads, keyring: KeyringPath) -> KeyringDetail:
    """Tell everything about a keyring but its keys."""
    return KeyringDetail.of(await keyring_standing(by.manager, keyring))


async def rotate(by: Writes, keyring: KeyringPath, given: Rotation | None = None) -> Key:
    """Give a keyring a new version, and answer it; what was encrypted before stays readable.

    While other processes run it is pre-active until each of them has loaded it.
    """
    given = given or Rotation()
    min_age = None if given.min_age_seconds is None else timedelta(seconds=given.min_age_seconds)
    return Key.model_validate(await admin.rotate_keyring(by.manager, keyring, promote=given.promote, min_age=min_age))


async def rotate_index(by: Writes, keyring: KeyringPath) -> IndexRotation:
    """Begin to replace an index key. Re-encrypting every registered field of the keyring ends it."""
    key, waits_for = await admin.rotate_index_key(by.manager, keyring)
    return IndexRotation(key=Key.model_validate(key), waits_for=waits_for)


async def abandon_index_rotation(by: Writes, keyring: KeyringPath) -> Key:
    """Give up a rotation of an index key, and answer the version that is not used after all."""
    return Key.model_validate(await admin.abandon_index_rotation(by.manager, keyring))


async def count_uses(by: Writes, keyring: KeyringPath) -> Counts:
    """Count what each version still protects. Each declared source is read whole, which takes as long as it takes."""
    return Counts.of(await protected(by.manager, keyring))


async def list_uses(
    by: Reads,
    keyring: Annotated[
        Name | None, Query(description="Only this keyring's, and those of patterns that name it.")
    ] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[Use]:
    """List the data sources that a destroy looks through. They are declared on the machine that they are read from."""
    (after,) = place_of(cursor, int) or (0,)
    shown, behind = part_of(await admin.list_uses(by.manager, keyring), after, limit)
    return Page(items=[Use.model_validate(each) for each in shown], next_cursor=behind)


async def remove_use(by: Writes, keyring: _UseKeyring, name: _UseName) -> None:
    """Take a declaration back: a destroy looks there no more. The data itself is not touched."""
    await admin.drop_use(by.manager, keyring, name)
