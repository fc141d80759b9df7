"""How a log is written; see ``SealedFile``, whose arguments these are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from keystead.errors import ConfigurationError
from keystead.ledger.writing.witnessing import WitnessKeys
from keystead.ports import Clock
from keystead.runtime.clock import SystemClock

Fsync = Literal["flush", "always", "never"]
MIN_FILE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """See the module.

    Raises:
        ConfigurationError: what cannot be.
    """

    epoch_s: int
    checkpoint_records: int
    checkpoint_s: float
    max_bytes: int | None
    compress: bool
    fsync: Fsync
    buffer_s: float
    chains_on_failure: bool
    goes_on_without_kek: bool = False
    witnesses: WitnessKeys = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        if self.epoch_s < 1 or self.checkpoint_records < 1 or not self.checkpoint_s > 0 or not self.buffer_s > 0:
            raise ConfigurationError("epoch_s, checkpoint_records, checkpoint_s and buffer_s are above zero")
        if self.max_bytes is not None and self.max_bytes < MIN_FILE_BYTES:
            raise ConfigurationError(f"max_bytes is at least {MIN_FILE_BYTES}")
