"""Re-encryption for code that is not async."""

from __future__ import annotations

from collections.abc import Callable

from keystead import fields
from keystead.blocking.manager import KeyManager
from keystead.fields import Field, Importer, ReencryptPlan, ReencryptProgress, ReencryptReport
from keystead.runtime.loop import background_loop


def reencrypt(
    km: KeyManager,
    url: str,
    field: Field,
    *,
    key_column: str | tuple[str, ...] | None = None,
    batch_rows: int = fields.BATCH_ROWS,
    workers: int = 1,
    rows_per_s: float | None = None,
    dry_run: bool = False,
    plaintext_column: str | None = None,
    importer: Importer | None = None,
    resume: bool = True,
    on_progress: Callable[[ReencryptProgress], None] | None = None,
) -> ReencryptReport:
    """Bring every row of a field to the active data key and the live index keys; see ``keystead.fields.reencrypt``.

    ``on_progress`` is called on the background loop: it must not block, nor call the manager.
    """
    return background_loop.run(
        fields.reencrypt(
            km._manager,
            url,
            field,
            key_column=key_column,
            batch_rows=batch_rows,
            workers=workers,
            rows_per_s=rows_per_s,
            dry_run=dry_run,
            plaintext_column=plaintext_column,
            importer=importer,
            resume=resume,
            on_progress=on_progress,
        )
    )


def plan(
    km: KeyManager,
    url: str,
    field: Field,
    *,
    key_column: str | tuple[str, ...] | None = None,
    plaintext_column: str | None = None,
    importer: Importer | None = None,
) -> ReencryptPlan:
    """Return what ``reencrypt`` would find, without writing anything; see ``keystead.fields.plan``."""
    asked = fields.plan(
        km._manager, url, field, key_column=key_column, plaintext_column=plaintext_column, importer=importer
    )
    return background_loop.run(asked)
