"""``manage.py keystead_reencrypt`` in a process of its own, which ends as by ``kill -9`` in the midst of a batch."""

from __future__ import annotations

import sys
from pathlib import Path

from django.core.management import call_command

from keystead import LocalKMSConfig, LocalKMSProvider, blocking
from keystead.integrations.django import bind
from keystead.stores import rows
from tests.fields.reencrypt_process import BATCH_ROWS, KEK, KilledTable
from tests.integrations.django.conftest import connected


def manager(store: str) -> blocking.KeyManager:
    """Return a manager of the store in a file, with the log of erasures beside it."""
    kms = {"local": LocalKMSProvider(LocalKMSConfig(master_key=KEK))}
    return blocking.KeyManager(kms, store=f"sqlite:///{store}", erasures=Path(f"{store}.erasures"))


def main() -> None:
    """Run the command, and die where the arguments say."""
    store, url, KilledTable.point = sys.argv[1:4]
    KilledTable.nth = int(sys.argv[4])
    vars(rows)["RowTable"] = KilledTable
    connected(url)
    with manager(store) as km:
        bind(km)
        call_command("keystead_reencrypt", "shop.Visit", "--batch-rows", str(BATCH_ROWS))


if __name__ == "__main__":
    main()
