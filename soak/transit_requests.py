"""Requests to the machine API that are made up: by its paths and their parameters, and out of recorded ones.

Both kinds use what earlier answers had, ciphertexts, signatures and HMACs, so that what is asked goes deep.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from keystead.model import TransitType
from keystead.server.vault.request import VaultPath, Verb, Way
from keystead.server.vault.router import PATHS
from tests.transit.replay.compare import leaves
from tests.transit.replay.player import INVALID_TOKEN
from tests.transit.replay.recordings import names, scenario
from tests.transit.replay.wire import Answer, Request

KEYS: Final = tuple(f"key-{number}" for number in range(24))
REMEMBERED: Final = 400
MOST_REPEATED: Final = 1200
RARE: Final = re.compile(r"/rotate|/import|keys/[^/]+$|/wrapping_key")
"""What makes versions, keys or RSA keys, in which a store legitimately grows: one in ``RARE_EVERY`` is sent."""
RARE_EVERY: Final = 25
_NAMED: Final = re.compile(r"\{(\w+):?\w*\}")
_OF_KEY: Final = re.compile(
    r"/v1/transit/(?:keys|encrypt|decrypt|rewrap|hmac|sign|verify|datakey/[^/]+)/([^/]+)(?!/import)"
)
_ENDS_TOKEN: Final = "revoke-self"
_TEXTS: Final = (
    "", " ", "a", "YQ==", "YQ", "!!", "vault:v1:AAAA", "vault:v99:AAAA", "vault:v1:", "vault:", "0", "-1", "1.5",
    "1e309", "true", "null", "asn1", "jws", "pss", "pkcs1v15", "auto", "hash", "sha2-256", "sha2-512", "sha3-256",
    "none", "hex", "base64", "1h", "24h", "SHA256", "\x00", "\U0001f600", "é" * 40, "a" * 5000, "%s%n", "../../x",
    "-----BEGIN",
)  # fmt: skip
_NUMBERS: Final = (0, 1, 2, 3, -1, 32, 256, 512, 128, 1.5, 2**31, 2**63 - 1, 2**63, -(2**64), 10**30, 1e300)
_METHODS: Final = ("POST", "POST", "POST", "PUT", "GET", "LIST", "DELETE", "PATCH", "HEAD", "OPTIONS", "FROB")
_HEADERS: Final = (
    {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {"X-Vault-Namespace": "x"},
    {"X-Vault-Wrap-TTL": "60"}, {"X-Vault-Namespace": "root"}, {"Content-Type": "application/merge-patch+json"},
    {"X-Vault-Request": "true"}, {"Content-Type": ""},
)  # fmt: skip


class Maker:
    """Makes up requests of a token, by chance."""

    def __init__(self, token: str, chance: random.Random) -> None:
        self._token = token
        self._chance = chance
        self._values: deque[str] = deque(maxlen=REMEMBERED)
        self._recorded = list(_recorded())

    def keep(self, answer: Answer) -> None:
        """Remember what an answer has, for requests to come."""
        if answer.status == 200 and isinstance(answer.body, dict):
            found = [text for text in leaves(answer.body.get("data")).values() if isinstance(text, str) and text]
            self._values.extend(found[:3])

    def first(self) -> list[Request]:
        """Return what makes a key of each type, some of them derived."""
        wanted: list[dict[str, Any]] = [{"type": each.value} for each in TransitType]
        wanted += [{"derived": True}, {"derived": True, "convergent_encryption": True}, {"deletion_allowed": True}]
        sized = [each | ({"key_size": 32} if each.get("type") == "hmac" else {}) for each in wanted]
        return [
            self._sent(Request("POST", f"/v1/transit/keys/{name}", body=body))
            for name, body in zip(KEYS, sized, strict=False)
        ]

    def by_path(self) -> Request:
        """Return a request to one of the paths, with parameters that it reads, or others."""
        path, chance = self._chance.choice(PATHS), self._chance
        method = _METHOD_OF[chance.choice([verb for verb in Verb if path.way(verb)] or [Verb.READ])]
        if chance.random() < 0.05:
            method = chance.choice(_METHODS)
        query = f"{chance.choice(('list', 'context', 'limit', 'after', 'version'))}={quote(self._text())}"
        return self._sent(
            Request(
                method,
                "/v1" + _NAMED.sub(lambda named: quote(self._named(named[1]), safe="/"), path.template),
                query if chance.random() < 0.1 else "",
                body=self._body(path) if method in ("POST", "PUT", "PATCH", "FROB") else None,
            )
        )

    def by_recording(self) -> Request:
        """Return a recorded request that is changed in up to three places."""
        request = self._recorded[self._chance.randrange(len(self._recorded))]
        request = replace(request, path=self._of_a_key(request.path), body=self._resolved(request.body))
        for _ in range(self._chance.randrange(4)):
            request = self._changed(request)
        return self._sent(request)

    def is_rare(self, request: Request) -> bool:
        """Whether a request is one that is not to be sent as often as it is made up."""
        is_writing = request.method in ("POST", "PUT") and RARE.search(request.path) is not None
        return is_writing and self._chance.randrange(RARE_EVERY) > 0

    def _sent(self, request: Request) -> Request:
        draw = self._chance.random()
        token = self._token if draw > 0.03 and _ENDS_TOKEN not in request.path else INVALID_TOKEN
        headers = {**request.headers, **({} if draw < 0.01 else {"X-Vault-Token": token})}
        if self._chance.random() < 0.05:
            headers |= self._chance.choice(_HEADERS)
        return replace(request, headers=headers)

    def _named(self, name: str) -> str:
        if name == "name" and self._chance.random() < 0.9:
            return self._chance.choice(KEYS)
        return self._chance.choice(("plaintext", "wrapped", "sha2-256", "12", "seal/5", "encryption-key", self._text()))

    def _body(self, path: VaultPath) -> Any:
        way = path.write
        known = sorted(way.fields or ()) if isinstance(way, Way) else ["role_id", "secret_id", "role", "jwt"]
        given = {name: self._value(name) for name in known if self._chance.random() < 0.45}
        if "batch_input" in given and self._chance.random() < 0.9:
            inner = [name for name in known if name != "batch_input"]
            size = self._chance.choice((1, 1, 2, 5, 40))
            given["batch_input"] = [
                {name: self._value(name) for name in inner if self._chance.random() < 0.5} for _ in range(size)
            ]
        return given if self._chance.random() < 0.97 else self._junk(2)

    def _value(self, name: str) -> Any:
        draw = self._chance.random()
        if draw < 0.12:
            return self._junk(2)
        if name in ("ciphertext", "signature", "hmac", "jwt") and self._values and draw < 0.9:
            return self._chance.choice(self._values)
        if name in ("plaintext", "input", "context", "associated_data") and draw < 0.9:
            return base64.b64encode(self._chance.randbytes(self._chance.choice((0, 1, 16, 32, 300)))).decode()
        if name == "type":
            return self._chance.choice([*TransitType, "junk"])
        return self._chance.choice((self._text(), self._chance.choice(_NUMBERS), True, False))

    def _text(self) -> str:
        return self._chance.choice((*_TEXTS, *list(self._values)[:20]))

    def _junk(self, depth: int) -> Any:
        kind = self._chance.randrange(7 if depth else 5)
        if kind == 5:
            return [self._junk(depth - 1) for _ in range(self._chance.randrange(4))]
        if kind == 6:
            return {self._text(): self._junk(depth - 1) for _ in range(self._chance.randrange(4))}
        return (None, self._text(), self._chance.choice(_NUMBERS), True, self._text())[kind]

    def _of_a_key(self, path: str) -> str:
        """Return a path, mostly with a key that is there in the place of the one that was recorded."""
        named = _OF_KEY.match(path)
        if named is None or self._chance.random() < 0.2:
            return path
        return path[: named.start(1)] + self._chance.choice(KEYS) + path[named.end(1) :]

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value or "$byok" in value:
            return self._chance.choice(self._values or _TEXTS)
        if "$repeat" in value:
            times = min(value["$repeat"]["times"], MOST_REPEATED)
            return [value["$repeat"].get("item")] * times if "item" in value["$repeat"] else "AAAA" * times
        return {name: self._resolved(each) for name, each in value.items()}

    def _changed(self, request: Request) -> Request:
        chance = self._chance
        match chance.randrange(6):
            case 0:
                return replace(request, method=chance.choice(_METHODS))
            case 1:
                parts = request.path.split("/")
                parts[chance.randrange(1, len(parts))] = quote(chance.choice((*KEYS, self._text())), safe="")
                return replace(request, path="/".join(parts))
            case 2:
                return replace(request, raw=self._broken(request.content or b"{}"), body=None)
            case _:
                body = dict(request.body) if isinstance(request.body, dict) else {}
                name = chance.choice([*body, "batch_input", "key_version", "context"])
                if chance.random() < 0.2:
                    body.pop(name, None)
                else:
                    body[name] = self._value(name)
                return replace(request, body=body, raw=None)

    def _broken(self, content: bytes) -> bytes:
        at = self._chance.randrange(len(content)) if content else 0
        change = self._chance.choice((b"", b"\xff", b"{", b'"', b"\\ud800", b"[" * 3000, b'{"a":' * 1500, b"\x00"))
        return content[:at] + change + (b"" if self._chance.random() < 0.3 else content[at + 1 :])


def _recorded() -> list[Request]:
    found = []
    for name in names():
        for each in scenario(name).exchanges:
            given = {header: value for header, value in each.headers.items() if "TOKEN:" not in value}
            raw = None if each.raw_body is None else each.raw_body.encode()
            found.append(Request(each.method, each.path, each.query, given, each.body, raw))
    return found


_METHOD_OF: Final[Mapping[Verb, str]] = {
    Verb.READ: "GET",
    Verb.WRITE: "POST",
    Verb.LIST: "LIST",
    Verb.DELETE: "DELETE",
}


def shown(request: Request) -> str:
    """Return a request for whoever wants to send it again, without its token."""
    body = request.content
    text = "" if body is None else json.dumps(body[:400].decode(errors="replace"))
    return f"{request.method} {request.path}?{request.query} {text}"
