"""A re-encryption that a worker elsewhere is at."""

from __future__ import annotations

from typing import Final

from keystead.fields import Field
from keystead.fields.job_records import Target
from keystead.ports import ChunkRecord, KeyStore, ReencryptionRecord

FIELD: Final = Field("people", "email")
JOB: Final = ReencryptionRecord(
    "0123456789abcdef",
    FIELD.id,
    "sql:postgresql://app@db.example/shop#people.email",
    500,
    Target(1, (), False, None, ("id",), FIELD).to_json(),
    rows_total=1000,
)
HOLDS_MS: Final = 3_600_000


async def begun(store: KeyStore, job: ReencryptionRecord = JOB) -> ChunkRecord:
    """Begin it, and return the one part that it has, which a worker holds."""
    async with store.transaction() as work:
        await work.add_reencryption(job)
        return await work.cut_chunk(
            job.id, None, None, low=None, high=None, exhausted=True, owner="worker", ttl_ms=HOLDS_MS
        )
