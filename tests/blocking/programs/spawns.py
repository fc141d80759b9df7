"""Spawned processes open the store themselves and decrypt what the parent encrypted."""

from __future__ import annotations

import multiprocessing
import os

from keystead.blocking import KeyManager


def child(sealed: bytes) -> bytes:
    """Return what the parent sealed, sealed again."""
    with KeyManager.open(os.environ["PROGRAM_KMS"], store=os.environ["PROGRAM_STORE"]) as km:
        return km.local_encrypt(km.local_decrypt(sealed))


def main() -> None:
    """Run two children."""
    with KeyManager.open(os.environ["PROGRAM_KMS"], store=os.environ["PROGRAM_STORE"]) as km:
        sealed = km.local_encrypt(b"sedna")
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            again = pool.map(child, [sealed, sealed])
        assert [km.local_decrypt(one) for one in again] == [b"sedna", b"sedna"]
        assert len({one[10:26] for one in (sealed, *again)}) == 3
    print("done")


if __name__ == "__main__":
    main()
