"""Operations on Transit keys that are killed; each begins by decrypting whatever was given out before."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final

from keystead.errors import InvalidInputError, KMSError
from keystead.manager.transit import TransitEngine, transit
from keystead.model import TransitType
from keystead.transit import encrypting
from keystead.transit.administration import KeyChanges, NewTransitKey
from keystead.transit.opened import TOO_OLD, OpenKey
from soak.crash_operations import Operation, Stage

NAME: Final = "killed"
Act = Callable[[TransitEngine], Awaitable[object]]


def _killed(act: Act) -> Callable[[Stage], Awaitable[object]]:
    async def run(stage: Stage) -> None:
        engine = await transit(stage.km)
        await _decrypt_all(stage, engine)
        await act(engine)
        _give_out(stage, await engine.keys.open("", NAME))
        await _decrypt_all(stage, engine)

    return run


async def _decrypt_all(stage: Stage, engine: TransitEngine) -> None:
    path = stage.place.folder / "transit"
    if not path.exists():
        return
    key = await engine.keys.open("", NAME)
    for line in path.read_text(encoding="ascii").splitlines():
        plaintext, _, text = line.partition(" ")
        try:
            opened = encrypting.decrypt(key, text)
        except InvalidInputError as exc:
            # What is to be trimmed was excluded before.
            if str(exc) == TOO_OLD and key.record.min_decryption > int(text.split(":")[1][1:]):
                continue
            raise
        if opened.hex() != plaintext:
            raise KMSError("a Transit ciphertext decrypts to another plaintext")


def _give_out(stage: Stage, key: OpenKey) -> None:
    plaintext = os.urandom(16)
    text, _ = encrypting.encrypt(key, plaintext)
    with (stage.place.folder / "transit").open("a", encoding="ascii") as file:
        file.write(f"{plaintext.hex()} {text}\n")


async def _with_key(stage: Stage) -> None:
    engine = await transit(stage.km)
    key = await engine.administration.create("", NAME, NewTransitKey())
    for _ in range(2):
        _give_out(stage, key)
        key = await engine.administration.rotate("", NAME)


async def _nothing(stage: Stage) -> None:
    pass


async def _create(engine: TransitEngine) -> object:
    await engine.administration.create("", "signer", NewTransitKey(TransitType.ECDSA_P256))
    return await engine.administration.create("", NAME, NewTransitKey())


async def _rotate(engine: TransitEngine) -> object:
    return await engine.administration.rotate("", NAME)


async def _trim(engine: TransitEngine) -> object:
    await engine.administration.configure("", NAME, KeyChanges(min_decryption=2, min_encryption=2))
    return await engine.administration.trim("", NAME, 2)


OPERATIONS: Final = (
    Operation("create a Transit key", _nothing, _killed(_create)),
    Operation("rotate a Transit key", _with_key, _killed(_rotate)),
    Operation("trim a Transit key", _with_key, _killed(_trim)),
)
