"""The WRAP keyrings of one process: their keys are unwrapped by the KMS, and every other key by them.

A WRAP version is unwrapped once, when a row that it wraps is first met.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from keystead.crypto.keyring import MESSAGES_PER_SALT, Gate, Keyring
from keystead.crypto.private_keys import SEED_SIZE
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey
from keystead.errors import ConflictError, KeyDecryptionFailError, KeyNotFoundError, KeyStateError, StoreRestoredError
from keystead.lifecycle.creation import create_wrap_keyring, require_usable_wrap
from keystead.lifecycle.surroundings import Surroundings
from keystead.lifecycle.uses import Uses
from keystead.lifecycle.wrapping import open_key
from keystead.model import (
    WRAP_KEYRING,
    DataKeyState,
    KeyRecord,
    KeyringPurpose,
    KeyringRecord,
    StoreState,
    is_of_subject,
)
from keystead.ports import UnitOfWork
from keystead.runtime.locks import NamedLocks

T = TypeVar("T")
CREATE_ATTEMPTS: Final = 16
ORIGIN: Final = "keystead.origin"
"""What is sealed with a symmetric key that was brought in from outside."""
BROUGHT_IN: Final = "outside"


class WrapKeyrings:
    """Unwraps rows; ``LiveKeyrings`` adds the keyrings that data is encrypted under."""

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        gate: Gate = lambda ring, encrypting: None,
        messages_per_salt: int = MESSAGES_PER_SALT,
    ) -> None:
        self.surroundings = surroundings
        self.uses = Uses(surroundings.audit)
        self.state: StoreState | None = None
        self._gate = gate
        self._messages_per_salt = messages_per_salt
        self._wrap_rings: dict[str, Keyring] = {}
        self._wrap_rows: dict[int, KeyRecord] = {}
        self._seen: WeakKeyDictionary[Keyring, dict[int, int]] = WeakKeyDictionary()
        self._lock = NamedLocks()

    @property
    def store_id(self) -> str:
        """The store's id; ``open`` has read it."""
        if self.state is None:
            raise KeyNotFoundError("the store is not open yet")
        return self.state.store_id

    def new_ring(
        self, name: str, suite: int = 1, owner_of: Callable[[int], str | None] = lambda key_id: None
    ) -> Keyring:
        """Return an empty keyring behind the gate."""
        return Keyring(
            name,
            suite=suite,
            random=self.surroundings.random,
            messages_per_salt=self._messages_per_salt,
            gate=self._gate,
            owner_of=owner_of,
            is_strict=is_of_subject(name),
        )

    def is_wrap_ring(self, ring: Keyring) -> bool:
        """Whether ``ring`` is one of the WRAP keyrings, which encrypt keys only."""
        return self._wrap_rings.get(ring.name) is ring

    def wrap_row(self, key_id: int) -> KeyRecord | None:
        """Return the row of a WRAP version in use."""
        return self._wrap_rows.get(key_id)

    async def wrap_ring(self, name: str) -> Keyring:
        """Return the WRAP keyring ``name``, its active version unwrapped; made if there is none.

        Raises:
            InvalidInputError: a keyring of that name exists and is another kind.
        """
        if (ring := self._wrap_rings.get(name)) is not None:
            return ring
        async with self._lock(name):
            if (ring := self._wrap_rings.get(name)) is not None:
                return ring
            keyring = self.surroundings.new_keyring(name, KeyringPurpose.WRAP)
            active, key = await retry_conflicts(lambda: create_wrap_keyring(self.surroundings, self.store_id, keyring))
            key = key or await self._unwrapped_by_kms(active)
            ring = self.new_ring(name)
            self._take_wrap_row(ring, active, key)
            self._wrap_rings[name] = ring
            return ring

    async def unwrap(self, keyring: KeyringRecord, row: KeyRecord) -> LoadedKey:
        """Return a row's key, through the WRAP version it names (unwrapped by the KMS if that is not loaded).

        Raises:
            KeyDecryptionFailError: an altered row, of the key or of its keyring.
        """
        if (row.purpose, row.algorithm) != (keyring.purpose, keyring.algorithm):
            raise KeyDecryptionFailError(
                f"data key {row.id} is not of the purpose or algorithm its keyring {keyring.name!r} says: one of the "
                "two rows was altered; restore it from an export"
            )
        ring = await self.wrap_ring(keyring.wrap_keyring or WRAP_KEYRING)
        await self.ensure_wrap_key(ring, row)
        key = open_key(ring, self.store_id, row)
        # Of a key from outside the data key comes first, and then the key as it came: docs/spec/transit-v1.md, 3.
        size = SEED_SIZE if row.context.get(ORIGIN) == BROUGHT_IN else len(key)
        return LoadedKey(row.id, row.version, bytearray(key[:size]), bytearray(key[size:]))

    async def ensure_wrap_key(self, ring: Keyring, row: KeyRecord) -> None:
        """Unwrap the WRAP version that wraps ``row``, unless it is loaded."""
        if row.wrapped_by is None or row.wrapped_by in ring.snapshot.keys:
            return
        async with self._lock(ring.name):
            if row.wrapped_by in ring.snapshot.keys:
                return
            async with self.surroundings.store.reading() as work:
                wrap_row = await work.find_key(row.wrapped_by)
            if wrap_row is None or wrap_row.keyring != ring.name or not wrap_row.state.can_decrypt:
                raise KeyDecryptionFailError(
                    f"data key {row.id} is wrapped by WRAP key {row.wrapped_by}, which this store cannot use; "
                    "restore it from an export, or enable it again"
                )
            await self._add_wrap_key(ring, wrap_row)

    async def load_wrap_key(self, name: str, key_id: int) -> bool:
        """Load a WRAP version by its id; False where the keyring ``name`` has no such version.

        Raises:
            KeyStateError: it exists, and may not be used.
            KMSError: the KMS does not unwrap it now.
        """
        ring = await self.wrap_ring(name)
        if key_id in ring.snapshot.keys:
            return True
        async with self.surroundings.store.reading() as work:
            row = await work.find_key(key_id)
        if row is None or row.keyring != name:
            return False
        if not row.state.can_decrypt:
            raise KeyStateError(f"WRAP key {key_id} is {row.state}, and something is wrapped by it; enable it again")
        async with self._lock(name):
            await self._add_wrap_key(ring, row)
        return True

    async def sealing_ring(self, name: str) -> Keyring:
        """Return the WRAP keyring ``name`` ready to wrap under the version that is active in the store."""
        ring = await self.wrap_ring(name)
        async with self.surroundings.store.reading(once=True) as work:
            active = await work.find_active(name)
        if active is not None and active.id != ring.snapshot.active:
            async with self._lock(name):
                await self._add_wrap_key(ring, active)
        return ring

    async def hold_wrap_key(self, work: UnitOfWork, key_id: int) -> None:
        """See that what was sealed by a WRAP version may be kept; the version stays so until the transaction ends.

        Raises:
            StoreRestoredError: the store must be recovered first.
            ConflictError: the version went out of use; seal under the one that is active now.
        """
        if (await work.hold_keys()).restored:
            raise StoreRestoredError
        await require_usable_wrap(work, key_id)

    async def _add_wrap_key(self, ring: Keyring, row: KeyRecord) -> None:
        held = ring.snapshot.keys.get(row.id)
        key = bytes(held.key) if held else await self._unwrapped_by_kms(row)
        self._take_wrap_row(ring, row, key)

    async def _unwrapped_by_kms(self, row: KeyRecord) -> bytes:
        key = await self.surroundings.wrapper.unwrap(self.store_id, row)
        self.uses.unwrapped(row.id)
        return key

    def _take_wrap_row(self, ring: Keyring, row: KeyRecord, key: bytes) -> None:
        known = self._wrap_rows.get(row.id)
        if known is not None and known.published_epoch > row.published_epoch:
            row = known  # a poll came in while the KMS was asked
        self._wrap_rows[row.id] = row
        self._apply(ring, [row], {row.id: LoadedKey(row.id, row.version, bytearray(key))})

    def _apply(
        self, ring: Keyring, rows: Iterable[KeyRecord], fresh: dict[int, LoadedKey], *, anew: bool = False
    ) -> list[KeyRecord]:
        """Swap in a snapshot with ``rows`` as they are now and the keys in ``fresh`` added; return those rows.

        A row older than the one already applied is left out: reads that overlap may end in any order. With ``anew``
        the rows are all there are: nothing else is active or withheld. Keys in memory stay, although the store may
        have lost them.
        """
        old = ring.snapshot
        seen = self._seen.setdefault(ring, {})
        keys, withheld, dropped, taken = dict(old.keys), {} if anew else dict(old.withheld), [], []
        new = KeyringSnapshot() if anew else old
        for row in sorted(rows, key=lambda row: row.version):
            if row.published_epoch < seen.get(row.id, 0):
                continue
            seen[row.id] = row.published_epoch
            taken.append(row)
            key = old.keys.get(row.id) or fresh.get(row.id)
            withheld.pop(row.id, None)
            if not row.state.can_decrypt:
                withheld[row.id] = row.state
                if (held := keys.pop(row.id, None)) is not None:
                    dropped.append(held)
            elif key is not None:
                keys[row.id] = key
            if row.state is DataKeyState.ACTIVE and key is not None:
                new = KeyringSnapshot({}, row.id, row.activated_at, row.rotate_after, row.expires_at)
            elif new.active == row.id:
                new = KeyringSnapshot()
        ring.load(replace(new, keys=keys, withheld=withheld))
        for held in dropped:
            held.wipe()
        return taken


async def retry_conflicts(action: Callable[[], Awaitable[T]]) -> T:
    """Do ``action`` again when another process was faster; it then finds what that process made."""
    import stamina

    again = stamina.AsyncRetryingCaller(
        attempts=CREATE_ATTEMPTS, timeout=None, wait_initial=0.005, wait_max=0.05, wait_jitter=0.02
    )
    return await again(ConflictError, action)
