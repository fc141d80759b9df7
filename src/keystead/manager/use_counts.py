"""How many messages and bytes this process sealed under each data key, added to the rows from time to time."""

from __future__ import annotations

from typing import Final

from keystead import telemetry
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.maintenance import Maintenance

USES_EVERY_S: Final = 60.0
_Uses = dict[int, tuple[int, int]]


class UseCounts:
    """The counts that are not in the rows yet.

    Args:
        name: of the default keyring, of which it is told how far it is used up.
    """

    def __init__(self, live: LiveKeyrings, maintenance: Maintenance, name: str) -> None:
        self._live = live
        self._maintenance = maintenance
        self._name = name
        self._clock = live.surroundings.clock
        self._flushed_at = self._clock.monotonic()
        self._uses: _Uses = {}

    @property
    def is_due(self) -> bool:
        """Whether they are to be added again."""
        return self._clock.monotonic() - self._flushed_at >= USES_EVERY_S

    def forget(self) -> None:
        """Forget them in a child of a fork: the parent adds them."""
        self._uses = {}

    async def flush(self) -> None:
        """Add them to the rows; errors as the store's, and nothing is lost."""
        self._flushed_at = self._clock.monotonic()
        _add(self._uses, self._live.take_uses())
        writing, self._uses = self._uses, {}
        if not writing:
            return
        try:
            async with self._live.surroundings.store.transaction() as work:
                # In one order everywhere, so that two processes never wait for each other's rows.
                for key_id, (messages, size) in sorted(writing.items()):
                    await work.add_uses(key_id, messages, size)
                active = await work.find_active(self._name)
        except BaseException:
            _add(self._uses, writing)
            raise
        if active is not None and (ratio := self._maintenance.uses_ratio(active)) is not None:
            telemetry.key_uses(self._name, ratio)


def _add(counts: _Uses, more: _Uses) -> None:
    for key_id, (messages, size) in more.items():
        counted = counts.get(key_id, (0, 0))
        counts[key_id] = (counted[0] + messages, counted[1] + size)
