"""A parent and its forks encrypt, each rotates, and everybody decrypts everything."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
from multiprocessing.connection import Connection

from keystead.blocking import KeyManager
from keystead.runtime.loop import background_loop

km = KeyManager.open(os.environ["PROGRAM_KMS"], store=os.environ["PROGRAM_STORE"], epoch_max_age_s=0.5)
km.initialize()


def nodes() -> int:
    """Return how many processes have said to the store that they are there."""
    with sqlite3.connect(os.environ["PROGRAM_STORE"].removeprefix("sqlite:///")) as database:
        count: int = database.execute("SELECT count(*) FROM nodes").fetchone()[0]
    database.close()
    return count


def child(pipe: Connection) -> None:
    """Use the hot path first, which must bring the background task to life, then what does I/O."""
    sealed = [km.local_encrypt(b"eris")]
    while nodes() < 2:
        time.sleep(0.05)
    km.rotate_data_key(promote="now")
    sealed.append(km.local_encrypt(b"eris"))
    pipe.send(sealed)
    others = pipe.recv()
    pipe.send(all(km.local_decrypt(one) == b"eris" for one in others))
    km.close()


def main() -> None:
    """Run three children."""
    fork = multiprocessing.get_context("fork")
    everything = [km.local_encrypt(b"eris")]
    pipes, children = [], []
    for _ in range(3):
        ours, theirs = fork.Pipe()
        worker = fork.Process(target=child, args=(theirs,))
        worker.start()
        pipes.append(ours)
        children.append(worker)
    for pipe in pipes:
        everything += pipe.recv()
    for pipe in pipes:
        pipe.send(everything)
    assert all(pipe.recv() for pipe in pipes), "a child could not decrypt"
    assert all(km.local_decrypt(one) == b"eris" for one in everything), "the parent could not decrypt"
    for worker in children:
        worker.join(30)
        assert worker.exitcode == 0, worker.exitcode
    assert len({one[10:26] for one in everything}) == len(everything), "two processes shared a salt"
    km.close()
    background_loop.stop()
    print("done", len(everything))


if __name__ == "__main__":
    main()
