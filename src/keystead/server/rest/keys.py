"""``/v1/keys``: data keys over their lives, and the store that they lie in. The words are those of ``keystead key``."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query

from keystead.manager import admin
from keystead.manager.key_listing import keys_after, versions_after
from keystead.model import DataKeyState
from keystead.server.rest.answers import ABSENT, CONFLICT, answers
from keystead.server.rest.key_shapes import Destruction, Key, Rewrapped, Rewrapping, Status
from keystead.server.rest.keyrings import Reads, Writes
from keystead.server.rest.shapes import LIMIT, MOST, Cursor, Limit, Name, Page, page_of, place_of

_TAGS: Final[list[str | Enum]] = ["keys"]
_STORE: Final[list[str | Enum]] = ["store"]
Reference = Annotated[
    str,
    Path(
        alias="key",
        min_length=1,
        max_length=224,
        pattern=r"^([0-9]{1,19}|[\p{L}\p{M}\p{N}\p{P}\p{S} ]+/[0-9]{1,10})$",
        description="A data key: its id, or keyring/version.",
        examples=["default/1"],
    ),
]


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/keys", tags=_TAGS, operation_id="listKeys", responses=answers(ABSENT))(list_keys)
    router.get("/keys/{key:key}", tags=_TAGS, operation_id="showKey", responses=answers(ABSENT))(show)
    changing = answers(ABSENT, CONFLICT)
    for word, operation, function in (
        ("disable", "disableKey", disable),
        ("enable", "enableKey", enable),
        ("destroy", "destroyKey", destroy),
        ("cancel-destroy", "cancelDestroyKey", cancel_destroy),
    ):
        router.post(f"/keys/{{key:key}}/{word}", tags=_TAGS, operation_id=operation, responses=changing)(function)
    router.post("/rewrap", tags=_TAGS, operation_id="rewrapKeys", responses=answers(ABSENT, CONFLICT))(rewrap)
    router.get("/status", tags=_STORE, operation_id="showStatus")(status)


async def list_keys(
    by: Reads,
    keyring: Annotated[Name | None, Query(description="Only this one's, the oldest version first.")] = None,
    state: Annotated[
        list[DataKeyState] | None, Query(description="Only those in these states.", max_length=len(DataKeyState))
    ] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[Key]:
    """List data keys: those of a keyring by version, or all of them in an order that means nothing."""
    (after,) = place_of(cursor, int) or (0,)
    if keyring is None:
        found = await keys_after(by.manager, after, states=state, limit=limit + 1)
    else:
        found = await versions_after(by.manager, keyring, after, states=state, limit=limit + 1)
    shown, behind = page_of(found, limit, lambda each: (each.id if keyring is None else each.version,))
    return Page(items=[Key.model_validate(each) for each in shown], next_cursor=behind)


async def show(by: Reads, key: Reference) -> Key:
    """Tell everything about a data key but the key."""
    return Key.model_validate(await admin.find_key(by.manager, key))


async def disable(by: Writes, key: Reference) -> Key:
    """Stop a version that is not active from decrypting, until it is enabled."""
    found = await admin.find_key(by.manager, key)
    return Key.model_validate(await admin.disable_key(by.manager, found.id))


async def enable(by: Writes, key: Reference) -> Key:
    """Let a disabled version decrypt again."""
    found = await admin.find_key(by.manager, key)
    return Key.model_validate(await admin.enable_key(by.manager, found.id))


async def destroy(by: Writes, key: Reference, given: Destruction | None = None) -> Key:
    """Schedule a version's destruction: whatever is still encrypted under it is then lost for ever.

    Every declared data source is searched, now and again when the time has come.
    """
    given = given or Destruction()
    found = await admin.find_key(by.manager, key)
    wait = timedelta(seconds=given.wait_seconds)
    return Key.model_validate(
        await admin.schedule_destroy(by.manager, found.id, wait=wait, without_sources=given.without_sources)
    )


async def cancel_destroy(by: Writes, key: Reference) -> Key:
    """Call a scheduled destruction off; the version is disabled afterwards."""
    found = await admin.find_key(by.manager, key)
    return Key.model_validate(await admin.cancel_destroy(by.manager, found.id))


async def rewrap(by: Writes, given: Rewrapping | None = None) -> Rewrapped:
    """Wrap every key again under the KEK of now; no data is touched. May be stopped and run again."""
    given = given or Rewrapping()
    report = await admin.rewrap(by.manager, new_kek_version=given.rotate_kek, new_wrap_key=not given.keep_wrap_key)
    return Rewrapped.model_validate(report)


async def status(by: Reads) -> Status:
    """Tell the state of the store, and which KEKs are still needed."""
    found = Status.model_validate(await admin.store_status(by.manager))
    return found.model_copy(update={"pending_destroy": found.pending_destroy[:MOST]})
