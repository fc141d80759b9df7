"""A parent and its forks use one provider object; each logs in for itself, and ends as a program does.

Behind the guard, as in Keystead: while one process logs in to SoftHSM2, another that starts it may see no token.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from multiprocessing.connection import Connection

from keystead.model import EncryptedData
from keystead.providers.guard import GuardedProvider
from keystead.providers.pkcs11.provider import Pkcs11KMSConfig, Pkcs11KMSProvider

KEY = os.environ["PROGRAM_KEY"]
config = Pkcs11KMSConfig(os.environ["PROGRAM_MODULE"], "kms", pin=os.environ["PROGRAM_PIN"], timeout_s=60)
inside = Pkcs11KMSProvider(config)
provider = GuardedProvider(inside, "hsm", attempts=20, deadline_s=60)


async def use(sealed: EncryptedData) -> bytes:
    """Read what the parent wrote, and write something back."""
    assert await provider.decrypt(sealed) == b"parent"
    mine = await provider.encrypt(b"child", KEY)
    await inside.aclose()
    return mine.to_bytes()


def child(pipe: Connection, sealed: bytes) -> None:
    """Use the parent's provider in a loop of its own."""
    pipe.send(asyncio.run(use(EncryptedData.from_bytes(sealed))))


async def main() -> None:
    """Use the token, fork, and use it again."""
    fork = multiprocessing.get_context("fork")
    sealed = await provider.encrypt(b"parent", KEY)
    pipes, children = [], []
    for _ in range(3):
        ours, theirs = fork.Pipe()
        worker = fork.Process(target=child, args=(theirs, sealed.to_bytes()))
        worker.start()
        pipes.append(ours)
        children.append(worker)
    assert await provider.decrypt(sealed) == b"parent"
    assert all(pipe.poll(60) for pipe in pipes), "a child did not answer"
    answers = [EncryptedData.from_bytes(pipe.recv()) for pipe in pipes]
    for worker in children:
        worker.join(30)
        assert worker.exitcode == 0, worker.exitcode
    assert [await provider.decrypt(answer) for answer in answers] == [b"child"] * 3
    assert len({answer.ciphertext for answer in answers}) == 3
    print("done", len(answers))


asyncio.run(main())
