"""The trail for code that is not async."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine

from keystead import blocking
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from tests.audit.places import KEK, Place, options


def test_everything_can_be_done_without_an_event_loop(place: Place, tmp_path: Path) -> None:
    engine = create_engine(place.url if place.is_sqlite else place.url.replace("postgresql:", "postgresql+psycopg:"))
    providers = {"local": LocalKMSProvider(LocalKMSConfig(master_key=KEK))}
    with blocking.KeyManager(providers, store=place.url, audit=options(), initialization_timeout=60) as km:
        km.audit.record("order.paid", number=1)
        with engine.connect() as connection:
            km.audit.record("order.paid", within=connection, number=2)
            connection.rollback()
            km.audit.record("order.paid", within=connection, number=3)
            connection.commit()
        km.rotate_data_key()
        km.audit.sequenced()
        assert [record.details["number"] for record in km.audit.entries(action="order.paid")] == [1, 3]
        note = km.audit.checkpoint()
        assert km.audit.last_checkpoint() == note
        policy = km.audit.trust_policy()
        assert km.audit.verify(policy=policy, since=note, compares_store=True).valid
        assert [path.name for path in km.audit.export(tmp_path)] == ["audit.log"]
        assert km.audit.archive(tmp_path / "old", before=datetime.now(UTC)).files == []
        assert km.audit.status().is_on
        km.audit.begin()
        km.audit.end("enough")
    engine.dispose()
