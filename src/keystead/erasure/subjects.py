"""Subjects and their keyrings: a keyed hash in the store leads from one to the other. Spec: erasure-v1.md, 1."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from keystead.crypto.framing import framed
from keystead.crypto.keyring import Keyring
from keystead.erasure.following import Following
from keystead.erasure.lines import Erased
from keystead.errors import InvalidInputError, KeyNotFoundError
from keystead.lifecycle.creation import add_keyring
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.wrap_keyrings import retry_conflicts
from keystead.model import SUBJECT_PREFIX, WRAP_KEYRING
from keystead.ports import ErasureMark, SubjectRecord

REMEMBERED: Final = 100_000
"""How many subjects' keyrings a process remembers by name."""
LONGEST: Final = 1000
_DOMAIN: Final = "keystead subject v1"
_NAME_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Committed:
    """An erasure that is committed: what the log says, how it stands with that, and the epoch."""

    erased: Erased
    mark: ErasureMark
    epoch: int


class Subjects:
    """Finds and makes the keyrings of subjects, and erases them.

    Args:
        hashing: returns the keyring ``keystead.subjects``, loaded, and made if there is none.
    """

    def __init__(self, live: LiveKeyrings, following: Following, hashing: Callable[[], Awaitable[Keyring]]) -> None:
        self._live = live
        self._s = live.surroundings
        self._following = following
        self._hashing = hashing
        self._names: OrderedDict[bytes, str] = OrderedDict()

    async def ring(self, subject: str, *, create: bool = True, wrap_keyring: str = WRAP_KEYRING) -> Keyring:
        """Return the keyring of a subject, loaded.

        Args:
            create: whether it is made where there is none.
            wrap_keyring: the WRAP keyring of one that is made.

        Raises:
            InvalidInputError: no text of 1 to 1 000 characters.
            KeyNotFoundError: there is none, and none is made.
            ErasureLogError: the log of erasures is not there, or not whole.
            ConfigurationError: the manager was given none.
        """
        ids = await self._ids(subject)
        name = next((known for each in ids if (known := self._remembered(each)) is not None), None)
        if name is None:
            name = await self._find(ids)
        if name is None:
            if not create:
                raise _unknown()
            await self._following.begin()
            name = await retry_conflicts(lambda: self._make(ids[0], wrap_keyring))
        self._remember(ids[0], name)
        return await self._live.load(name)

    async def erase(self, subject: str) -> Committed:
        """Destroy the keys of a subject for good.

        Raises:
            KeyNotFoundError: nothing is kept under keys of that subject.
            ErasureLogError, ConfigurationError: as ``ring``. Nothing was destroyed.
        """
        ids = await self._ids(subject)

        async def once() -> Committed:
            await self._following.look()
            codes = await self._following.codes()
            async with self._s.store.transaction() as work:
                epoch = await work.bump_epoch()
                found = [record for each in ids if (record := await work.find_subject(each)) is not None]
                if not found:
                    raise _unknown()
                return Committed(*await self._following.erase(work, codes, found[0].keyring), epoch)

        erasure = await retry_conflicts(once)
        for each in ids:
            self._names.pop(each, None)
        # Known to this process before anybody is told.
        await self._following.look()
        return erasure

    async def _ids(self, subject: str) -> list[bytes]:
        """Return the hashes that a subject may be known by, the one of the newest key first."""
        if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST:
            raise InvalidInputError(f"a subject is named by a text of 1 to {LONGEST} characters")
        keys = (await self._hashing()).copy_all()
        return [subject_id(key, subject) for _, key in reversed(keys)]

    async def _find(self, ids: list[bytes]) -> str | None:
        async with self._s.store.reading() as work:
            for each in ids:
                if (record := await work.find_subject(each)) is not None:
                    return record.keyring
        return None

    async def _make(self, subject_id: bytes, wrap_keyring: str) -> str:
        name = SUBJECT_PREFIX + self._s.random(_NAME_BYTES).hex()
        keyring = self._s.new_keyring(name, wrap_keyring=wrap_keyring)
        wrap_ring = await self._live.sealing_ring(wrap_keyring)
        async with self._s.store.transaction() as work:
            # Before the row is there: whoever erases has it whole or not at all.
            await work.bump_epoch()
            if (known := await work.find_subject(subject_id)) is not None:
                return known.keyring
            await work.add_subject(SubjectRecord(subject_id, name, self._s.clock.now()))
            await add_keyring(self._s, work, self._live.store_id, keyring, wrap_ring)
        return name

    def _remembered(self, subject_id: bytes) -> str | None:
        name = self._names.get(subject_id)
        if name is not None and name in self._following.erased:
            del self._names[subject_id]
            return None
        return name

    def _remember(self, subject_id: bytes, name: str) -> None:
        self._names[subject_id] = name
        self._names.move_to_end(subject_id)
        while len(self._names) > REMEMBERED:
            self._names.popitem(last=False)


def subject_id(key: bytes, subject: str) -> bytes:
    """Return the hash that a subject is known by under a key.

    Raises:
        InvalidInputError: a text that is not UTF-8.
    """
    try:
        message = framed(_DOMAIN, subject)
    except UnicodeEncodeError:
        raise InvalidInputError("a subject is named by a text that is UTF-8, without lone surrogates") from None
    return hmac.digest(key, message, "sha256")


def _unknown() -> KeyNotFoundError:
    return KeyNotFoundError(
        "nothing in this store is under keys of that subject: it never was, or was erased; see that the name is the "
        "one that was encrypted under"
    )
