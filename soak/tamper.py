"""Every bit of an envelope flipped, and every truncation of it, in binary and in text."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from keystead.crypto.envelope import to_text
from keystead.errors import DataKeyNotLoadedError, DecryptionError
from keystead.manager.manager import KeyManager
from soak.figures import Figure, Figures, Setting
from soak.harness import in_child
from soak.places import SQLITE, Place

SIZES: Final = (0, 1, 15, 16, 17, 64, 255, 1024)
CONTEXTS: Final[tuple[dict[str, str] | None, ...]] = (None, {"tenant": "north"})
ID_BITS: Final = range(2 * 8, 10 * 8)


class Tamper:
    """See the module."""

    name = "tamper"
    claim = "Whatever is altered or cut off, the answer is a DecryptionError, and never bytes."

    def run(self, setting: Setting) -> list[Figure]:
        """Alter envelopes of several sizes, with and without a context, made before and after a rotation."""
        place = setting.databases.place(SQLITE, setting.folder / "tamper")
        return in_child(_tamper, place, setting.choose(short=8, full=64))


def _tamper(place: Place, wanted: int) -> list[Figure]:
    async def main() -> list[Figure]:
        figures = Figures()
        async with place.manager() as km:
            contexts = [CONTEXTS[number % len(CONTEXTS)] for number in range(wanted)]
            envelopes = []
            for number, context in enumerate(contexts):
                if number == wanted // 2:
                    await km.rotate_data_key()
                size = SIZES[number % len(SIZES)]
                envelopes.append(km.local_encrypt(os.urandom(size), context=context))
            opened, others, unknown, flips = 0, 0, 0, 0
            for envelope, context in zip(envelopes, contexts, strict=True):
                for bit in range(len(envelope) * 8):
                    altered = bytearray(envelope)
                    altered[bit // 8] ^= 1 << bit % 8
                    outcome = _outcome(km, bytes(altered), context)
                    flips += 1
                    opened += outcome is None
                    unknown += outcome is DataKeyNotLoadedError and bit in ID_BITS
                    others += outcome not in (None, DecryptionError) and bit not in range(ID_BITS.stop)
            figures.tell("envelopes", "envelopes", len(envelopes))
            figures.tell("bits flipped", "flips", flips)
            figures.equal("bits flipped", "envelopes that opened all the same", opened, 0)
            figures.equal("bits flipped", "errors beyond the magic, suite and id other than DecryptionError", others, 0)
            figures.tell("bits flipped", "ids that became unknown, DataKeyNotLoadedError", unknown)
            cuts, opened = 0, 0
            for envelope, context in zip(envelopes, contexts, strict=True):
                text = to_text(envelope)
                for cut in range(len(envelope)):
                    opened += _outcome(km, envelope[:cut], context) is None
                for cut in range(len(text)):
                    opened += _outcome(km, text[:cut], context) is None
                cuts += len(envelope) + len(text)
            figures.tell("truncated", "truncations, binary and text", cuts)
            figures.equal("truncated", "envelopes that opened all the same", opened, 0)
        return figures.rows

    return asyncio.run(main())


def _outcome(km: KeyManager, blob: bytes | str, context: dict[str, str] | None) -> type[DecryptionError] | None:
    """Return the class of the DecryptionError, or None where there was none; any other error passes through."""
    try:
        km.local_decrypt(blob, context=context)
    except DecryptionError as exc:
        return type(exc)
    return None
