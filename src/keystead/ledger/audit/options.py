"""How a trail is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from keystead.errors import ConfigurationError
from keystead.ledger.audit.exporting import Witness
from keystead.ledger.audit.keys import EPOCH_S
from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner
from keystead.ports import KmsProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How the audit trail of a store is kept.

    Args:
        kms: what wraps the session keys of the log: a URI, or a provider with ``kms_key_id``; the store's KEK unless
            given. A key of its own may be one that this process cannot unwrap with.
        signer: what signs checkpoints: the URI of a key in a KMS, or an object; a key of the store's own unless given.
        checkpoint_records, checkpoint_s: a checkpoint is made after so many records, or so many seconds with records.
        checkpoint_file: where the last checkpoint is kept, outside the database. Without one, or a witness, nobody
            notices when the end of the log is cut off.
        witnesses: are asked to cosign each checkpoint.
        epoch_s: seconds after which the log's session key goes forward and the one before is erased.
        on_failure: ``fail``: what cannot be recorded does not happen. ``warn``: it does, and an error is logged.
        unwraps: whether keys that are unwrapped are recorded, not only what changes something.
        interval_s: how often the process that seals looks for entries.
        begins: whether a trail is begun where the store has none.
        uris: what opens a KMS, by its provider's name, for the policy of readers.

    Raises:
        ConfigurationError: an option that cannot be.
    """

    kms: str | KmsProvider | None = None
    kms_key_id: str | None = None
    signer: str | CheckpointSigner | None = None
    checkpoint_records: int = 10_000
    checkpoint_s: float = 60.0
    checkpoint_file: str | os.PathLike[str] | None = None
    witnesses: Sequence[Witness] = ()
    epoch_s: int = EPOCH_S
    on_failure: Literal["fail", "warn"] = "fail"
    unwraps: bool = True
    interval_s: float = 1.0
    begins: bool = True
    uris: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.checkpoint_records < 1 or not self.checkpoint_s > 0 or not self.interval_s > 0 or self.epoch_s < 1:
            raise ConfigurationError(
                "checkpoint_records, checkpoint_s, interval_s and epoch_s of an audit trail are above zero"
            )
        if self.on_failure not in ("fail", "warn"):
            raise ConfigurationError('on_failure of an audit trail is "fail" or "warn"')
