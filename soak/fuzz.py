"""Random and mutated input at every door: whatever comes, only errors of the one tree go out."""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from keystead.config.yaml_file import read_yaml
from keystead.crypto.envelope import inspect, to_text
from keystead.errors import KMSError
from keystead.manager import backup
from keystead.manager.manager import KeyManager
from keystead.model import EncryptedData
from soak.figures import Figure, Figures, Setting
from soak.harness import fork, results
from soak.places import SQLITE, Place

PROCESSES: Final = 2
LONGEST: Final = 200
ALPHABET: Final = "abzAZ019-_=.:/ \n\0${}é\udc80\U0001f511"
Target = Callable[["Input"], object | Awaitable[object]]


class Fuzz:
    """See the module."""

    name = "fuzz"
    claim = "Random and mutated input ends in a result or in an error of the one tree, at every door."

    def run(self, setting: Setting) -> list[Figure]:
        """Fuzz in two processes, from seeds that are told, so that a finding can be repeated."""
        figures = Figures()
        seconds = setting.choose(short=10.0, full=600.0)
        places = [setting.databases.place(SQLITE, setting.folder / f"fuzz-{n}") for n in range(PROCESSES)]
        seeds = [int.from_bytes(os.urandom(4), "big") for _ in places]
        children = [fork(_fuzz, place, seed, seconds) for place, seed in zip(places, seeds, strict=True)]
        tried: Counter[str] = Counter()
        foreign: list[str] = []
        for seed, (counts, found) in zip(seeds, results(children, seconds + 120), strict=True):
            tried += counts
            foreign += [f"seed {seed}: {one}" for one in found]
        for name, count in sorted(tried.items()):
            figures.tell(name, "inputs", count)
        figures.tell("all", "inputs", tried.total())
        figures.equal("all", "foreign exceptions", "; ".join(foreign[:5]) or "none", "none")
        return figures.rows


class Input:
    """Random values, from one seed."""

    def __init__(self, seed: int, samples: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._samples = samples

    def raw(self) -> bytes:
        """Return random bytes, often with a known magic."""
        body = self._random.randbytes(self._random.randrange(LONGEST))
        return self._random.choice([b"", b"\xae\x01", b"\xae\x10", b"\xaf\x01"]) + body

    def mutated(self) -> bytes:
        """Return a valid sample with bytes changed, cut, repeated or inserted."""
        blob = bytearray(self._random.choice(self._samples))
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randrange(len(blob) + 1)
            kind = self._random.randrange(4)
            if kind == 0 and at < len(blob):
                blob[at] ^= 1 << self._random.randrange(8)
            elif kind == 1:
                del blob[at:]
            elif kind == 2:
                blob[at:at] = self._random.randbytes(self._random.randint(1, 8))
            else:
                blob[at:at] = blob[: self._random.randrange(40)]
        return bytes(blob)

    def blob(self) -> bytes:
        """Return bytes of either kind."""
        return self.mutated() if self._random.random() < 0.7 else self.raw()

    def text(self) -> str:
        """Return a random text, with what encoders dislike."""
        return "".join(self._random.choices(ALPHABET, k=self._random.randrange(12)))

    def envelope_text(self) -> str:
        """Return a text form, right or nearly so."""
        text = to_text(self.blob())
        at = self._random.randrange(len(text))
        return self._random.choice(
            [text, text[:at], text[:at] + self.text() + text[at:], "ks2." + text[4:], self.text()]
        )

    def value(self, depth: int = 2) -> Any:
        """Return a random JSON-like value, and sometimes one that JSON does not know."""
        kind = self._random.randrange(9 if depth else 7)
        if kind == 7:
            return [self.value(depth - 1) for _ in range(self._random.randrange(4))]
        if kind == 8:
            return {self.text(): self.value(depth - 1) for _ in range(self._random.randrange(4))}
        simple: list[Any] = [None, True, self._random.randint(-(2**70), 2**70), 1.5, self.text(), self.raw(), "00ff"]
        return simple[kind]

    def context(self) -> Any:
        """Return a context, mostly of texts."""
        pairs = {self.text(): self.text() for _ in range(self._random.randrange(4))}
        return self._random.choice([pairs, pairs, None, self.value(), {self.text(): self.value()}])

    def changed(self, document: Any) -> Any:
        """Return a JSON-like document with one of its values replaced, wherever it lies."""
        if isinstance(document, dict) and document and self._random.random() < 0.9:
            name = self._random.choice(list(document))
            kind = self._random.random()
            if kind < 0.1:
                return {key: value for key, value in document.items() if key != name}
            return {**document, name: self.changed(document[name])}
        if isinstance(document, list) and document and self._random.random() < 0.9:
            at = self._random.randrange(len(document))
            return [*document[:at], self.changed(document[at]), *document[at + 1 :]]
        return self.value()

    def pick(self, names: list[str]) -> str:
        """Return one of ``names``."""
        return self._random.choice(names)


def _fuzz(place: Place, seed: int, seconds: float) -> tuple[Counter[str], list[str]]:
    async def main() -> tuple[Counter[str], list[str]]:
        tried: Counter[str] = Counter()
        foreign: dict[str, str] = {}
        async with place.manager() as km:
            sealed = [km.local_encrypt(bytes(size)) for size in (0, 1, 64)]
            kms = await km.encrypt(b"secret", context={"a": "b"})
            given = Input(seed, [*sealed, kms.to_bytes()])
            targets = _targets(km, kms, await backup.export_text(km), place.folder)
            names = list(targets)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                name = given.pick(names)
                tried[name] += 1
                try:
                    answer = targets[name](given)
                    if isinstance(answer, Awaitable):
                        await answer
                except KMSError:
                    pass
                except Exception as exc:
                    foreign.setdefault(f"{name} {type(exc).__name__}", f"{name}: {exc!r}")
        return tried, list(foreign.values())

    return asyncio.run(main())


def _targets(km: KeyManager, kms: EncryptedData, export: str, folder: Path) -> dict[str, Target]:
    """Return every door by name."""
    document = json.loads(export)
    return {
        "local_decrypt": lambda given: km.local_decrypt(given.blob(), context=given.context()),
        "local_decrypt, text": lambda given: km.local_decrypt(given.envelope_text()),
        "local_encrypt": lambda given: km.local_encrypt(given.value(), context=given.context()),
        "decrypt_local": lambda given: km.decrypt_local(given.blob()),
        "needs_reencrypt": lambda given: km.needs_reencrypt(given.blob()),
        "inspect": lambda given: inspect(given.envelope_text()),
        "EncryptedData.from_bytes": lambda given: EncryptedData.from_bytes(given.blob()).to_bytes(),
        "EncryptedData.from_dict": lambda given: EncryptedData.from_dict(given.changed(kms.to_dict())).to_bytes(),
        "decrypt": lambda given: km.decrypt(given.changed(kms.to_dict()), context=given.context()),
        "decrypt_field": lambda given: km.decrypt_field(given.blob(), context=given.context()),
        "encrypt_field": lambda given: km.encrypt_field(given.value(), context=given.context()),
        "hash_field": lambda given: km.hash_field(given.value(), name=given.text()),
        "get_data_key_by_version": lambda given: km.get_data_key_by_version(given.value()),
        "keyring": lambda given: km.keyring(given.value(), create=False),
        "export document": lambda given: backup.read_export(_signed(given.changed(document))),
        "export text": lambda given: backup.read_export(given.envelope_text()),
        "YAML": lambda given: _yaml(folder, given),
    }


def _signed(document: Any) -> str:
    """Return an altered export with the checksum made right, so that what is inside is read."""
    from keystead.lifecycle import portable

    if isinstance(document, dict) and isinstance(document.get("store"), dict):
        document = {**document, "sha256": portable._digest(_plain(document["store"]))}
    return json.dumps(_plain(document))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.hex() if isinstance(value, bytes) else value


def _yaml(folder: Path, given: Input) -> object:
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".yaml") as file:
        lines = [f"{given.pick(['kms', 'store', 'seed', given.text()])}: {given.value()!r}" for _ in range(3)]
        file.write(b"\n".join(line.encode("utf-8", "surrogatepass") for line in lines) + given.raw())
        file.flush()
        return read_yaml(Path(file.name), {})
