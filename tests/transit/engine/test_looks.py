"""A look at a key from before a rotation is used after it, as by a request that waited for a thread meanwhile."""

from __future__ import annotations

import pytest

from keystead.transit import encrypting
from keystead.transit.administration import NewTransitKey
from tests.transit.engine.conftest import Engines

MESSAGES = [(f"message {number}".encode(), b"") for number in range(3)]


async def test_what_an_older_look_encrypts_opens_under_the_version_that_it_names(engines: Engines) -> None:
    async with engines.node() as (engine, _):
        older = await engine.administration.create("", "k", NewTransitKey())
        newer = await engine.administration.rotate("", "k")
        assert not older.is_current
        text, version = encrypting.encrypt(older, b"one", aad=b"bound")
        assert (version, text.split(":")[1]) == (1, "v1")
        assert encrypting.decrypt(newer, text, aad=b"bound") == b"one"
        assert encrypting.encrypt(older, b"one", version=1)[1] == 1


@pytest.mark.parametrize("is_between", [False, True])
async def test_so_does_everything_of_a_batch(engines: Engines, is_between: bool) -> None:
    async with engines.node() as (engine, _):
        older = await engine.administration.create("", "k", NewTransitKey())
        if is_between:
            encrypting.encrypt_many(older, MESSAGES)  # nonces under the version before are drawn ahead
        newer = await engine.administration.rotate("", "k")
        texts, version = encrypting.encrypt_many(older, MESSAGES)
        assert version == 1
        assert [encrypting.decrypt(newer, text) for text in texts] == [plaintext for plaintext, _ in MESSAGES]
        assert encrypting.decrypt_many(older, texts) == [plaintext for plaintext, _ in MESSAGES]
