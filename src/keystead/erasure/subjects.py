"""Subjects and their keyrings: a keyed hash in the store leads from one to the other. Spec: erasure-v1.md, 1."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final

from keystead.crypto.framing import framed
from keystead.crypto.keyring import Keyring
from keystead.erasure.following import Following
from keystead.erasure.lines import Erased
from keystead.errors import InvalidInputError, KeyNotFoundError
from keystead.lifecycle.creation import add_keyrings
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.wrap_keyrings import retry_conflicts
from keystead.model import SUBJECT_PREFIX, WRAP_KEYRING
from keystead.ports import ErasureMark, SubjectRecord

REMEMBERED: Final = 100_000
"""How many subjects' keyrings a process remembers by name."""
LONGEST: Final = 1000
_DOMAIN: Final = "keystead subject v1"
_NAME_BYTES: Final = 16
AT_ONCE: Final = 200
"""How many keyrings are made in one transaction."""


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
        self._keys: list[tuple[int, bytes]] = []

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
        name = (await self._names_of([subject], create=create, wrap_keyring=wrap_keyring)).get(subject)
        if name is None:
            raise _unknown()
        return await self._live.load(name)

    async def rings(self, subjects: Collection[str], *, create: bool = True) -> dict[str, Keyring]:
        """Return the keyrings of subjects by their names, loaded, in few reads for all of them.

        Without ``create`` those that have none, or whose keys do not unwrap, are left out. Errors as ``ring``.
        """
        names = await self._names_of(subjects, create=create, wrap_keyring=WRAP_KEYRING)
        loaded = await self._live.load_all(names.values())
        for name in names.values() - loaded.keys() if create else ():
            loaded[name] = await self._live.load(name)  # which says why
        return {subject: loaded[name] for subject, name in names.items() if name in loaded}

    def find(self, subjects: Collection[str]) -> dict[str, Keyring]:
        """Return those of the keyrings of subjects that are loaded here, by the subjects' names, without I/O."""
        found: dict[str, Keyring] = {}
        for subject in subjects if self._keys else ():
            name = self._known(_ids(self._keys, subject))
            ring = None if name is None else self._live.find(name)
            if ring is not None:
                found[subject] = ring
        return found

    async def _names_of(self, subjects: Collection[str], *, create: bool, wrap_keyring: str) -> dict[str, str]:
        """Return the keyrings' names of subjects, each made if there is none, where that is asked for."""
        self._keys = (await self._hashing()).copy_all()
        ids = {subject: _ids(self._keys, subject) for subject in subjects}
        names = {subject: name for subject, each in ids.items() if (name := self._known(each)) is not None}
        missing = [subject for subject in ids if subject not in names]
        if missing:
            wanted = [each for subject in missing for each in ids[subject]]
            async with self._s.store.reading() as work:
                known = {record.id: record.keyring for record in await work.find_subjects(wanted)}
            names |= {subject: known[each] for subject in missing for each in reversed(ids[subject]) if each in known}
        unknown = [subject for subject in missing if subject not in names]
        if unknown and create:
            await self._following.begin()
            for at in range(0, len(unknown), AT_ONCE):
                part = unknown[at : at + AT_ONCE]
                made = await retry_conflicts(partial(self._make, [ids[each][0] for each in part], wrap_keyring))
                names |= zip(part, made, strict=True)
        for subject, name in names.items():
            self._remember(ids[subject][0], name)
        return names

    async def erase(self, subject: str) -> Committed:
        """Destroy the keys of a subject for good.

        Raises:
            KeyNotFoundError: nothing is kept under keys of that subject.
            ErasureLogError, ConfigurationError: as ``ring``. Nothing was destroyed.
        """
        ids = _ids((await self._hashing()).copy_all(), subject)

        async def once() -> Committed:
            await self._following.look()
            codes = await self._following.codes()
            async with self._s.store.transaction() as work:
                epoch = await work.bump_epoch()
                known = {record.id: record.keyring for record in await work.find_subjects(ids)}
                if not known:
                    raise _unknown()
                keyring = next(known[each] for each in ids if each in known)
                return Committed(*await self._following.erase(work, codes, keyring), epoch)

        erasure = await retry_conflicts(once)
        for each in ids:
            self._names.pop(each, None)
        # Known to this process before anybody is told.
        await self._following.look()
        return erasure

    async def keyring_of(self, subject: str) -> str:
        """Return the name of a subject's keyring.

        Raises:
            KeyNotFoundError: nothing is kept under keys of that subject.
        """
        ids = _ids((await self._hashing()).copy_all(), subject)
        async with self._s.store.reading() as work:
            known = {record.id: record.keyring for record in await work.find_subjects(ids)}
        for each in ids:
            if each in known:
                return known[each]
        raise _unknown()

    async def _make(self, subject_ids: list[bytes], wrap_keyring: str) -> list[str]:
        """Make the keyrings of subjects, and return their names: of one that has one meanwhile, that."""
        wrap_ring = await self._live.sealing_ring(wrap_keyring)
        async with self._s.store.transaction() as work:
            # Before a row is there: whoever erases has it whole or not at all.
            await work.bump_epoch()
            known = {record.id: record.keyring for record in await work.find_subjects(subject_ids)}
            new = {
                each: SUBJECT_PREFIX + self._s.random(_NAME_BYTES).hex() for each in subject_ids if each not in known
            }
            keyrings = [self._s.new_keyring(name, wrap_keyring=wrap_keyring) for name in new.values()]
            if keyrings:
                now = self._s.clock.now()
                await work.add_subjects([SubjectRecord(each, name, now) for each, name in new.items()])
                await add_keyrings(self._s, work, self._live.store_id, keyrings, wrap_ring)
        known |= new
        return [known[each] for each in subject_ids]

    def _known(self, ids: list[bytes]) -> str | None:
        """Return the name that is remembered of a subject's keyring."""
        return next(filter(None, map(self._remembered, ids)), None)

    def _remembered(self, subject_id: bytes) -> str | None:
        name = self._names.get(subject_id)
        if name is not None and name in self._following.erased:
            self._names.pop(subject_id, None)
            return None
        return name

    def _remember(self, subject_id: bytes, name: str) -> None:
        self._names[subject_id] = name
        self._names.move_to_end(subject_id)
        while len(self._names) > REMEMBERED:
            self._names.popitem(last=False)


def _ids(keys: list[tuple[int, bytes]], subject: str) -> list[bytes]:
    """Return the hashes that a subject may be known by, the one of the newest key first."""
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST:
        raise InvalidInputError(f"a subject is named by a text of 1 to {LONGEST} characters")
    return [subject_id(key, subject) for _, key in reversed(keys)]


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
