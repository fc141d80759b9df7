"""No logger says what was sent, at any level: a secret, a ciphertext, a token; however what was asked for came out."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator

import pytest

from keystead.access.callers import EVERY_SCOPE
from tests.canary.watch import SecretWatch, learning, listening
from tests.server.clients import GENERATE, SET_PASSCODE, SET_PIN, Client, Installation, Node, sealed
from tests.server.rest import OPERATIONS, Administrator
from tests.server.test_reference import CIPHERTEXT, DOCUMENTS

LOGGERS = (
    "",
    "keystead",
    "uvicorn",
    "sqlalchemy",
    "aiosqlite",
    "psycopg",
    "alembic",
    "asyncio",
    "strawberry",
)
SECRET, PIN, GUESS, DATA = "canary-passcode", "915046273815", "canary-guess", "canary-data"


class Said(logging.Handler):
    """Keeps everything that is logged: messages, members and tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = logging.Formatter("%(name)s %(message)s").format(record)
        record.exc_text = None
        members = {name: value for name, value in vars(record).items() if name not in ("pathname", "filename")}
        self.texts.append(f"{text} {members!r}")


@pytest.fixture
def said() -> Iterator[Said]:
    handler, watch = Said(), SecretWatch()
    with learning(watch), listening(watch, *((name, logging.DEBUG) for name in LOGGERS)):
        logging.getLogger().addHandler(handler)
        yield handler
        logging.getLogger().removeHandler(handler)
    assert watch.hits() == []


async def everything(node: Node) -> list[str]:
    """Ask every operation, so that it is done and so that it fails; return what nobody may say."""
    token = await node.token("ada", *EVERY_SCOPE)
    ada, root = Client(node.app, token), Administrator(node.app, token)
    key = await ada.key()
    sent = [token]

    def of(secret: str) -> str:
        sent.append(sealed(key, secret))
        return sent[-1]

    for query, member, secret in ((SET_PASSCODE, "encryptedPasscode", SECRET), (SET_PIN, "encryptedPin", PIN)):
        assert await ada.done(query, {member: of(secret), "keyId": key["keyId"]}) is True
    for name, member in CIPHERTEXT.items():
        kind = {"passwordAuthType": "PASSCODE"} if name == "verifySecret" else {}
        for text in (of(SECRET if "asscode" in name else PIN), of(GUESS), of(DATA), sent[-1][:-8], f"{sent[-1]}!"):
            await ada.ask(DOCUMENTS[name], {"input": {member: text, "keyId": key["keyId"], **kind}})
    await ada.ask(DOCUMENTS["getEncryptionMetricsSummary"])
    for name in ("listClientEncryptionKeys", "revokeDevice", "releaseDevice"):
        await ada.ask(DOCUMENTS[name], {"deviceId": "device-123"})
    await ada.ask(DOCUMENTS["forgetUser"], {"userId": "nobody"})
    for operation in OPERATIONS.values():
        await root.does(operation)
    await ada.post({"query": GENERATE, "variables": {"input": {"deviceId": SECRET, "appVersion": [PIN]}}})
    await ada.post({"query": f"mutation {{ {GUESS.replace('-', '_')} }}"}, Authorization=f"Bearer {token}{GUESS}")
    await ada.post(SECRET.encode())
    return sent


async def test_no_logger_says_what_was_sent(installation: Installation, said: Said) -> None:
    async with installation.node(environ={"KEYSTEAD_AUDIT_ENABLED": "true"}) as node:
        sent = await everything(node)
    assert any("sqlalchemy" in text for text in said.texts)
    assert any("keystead.server.requests" in text for text in said.texts)
    text = "\n".join(said.texts)
    for secret in (SECRET, PIN, GUESS, GUESS.replace("-", "_"), DATA, *sent, *(each[10:60] for each in sent)):
        assert secret not in text
    for ciphertext in (base64.b64decode(each)[:24] for each in sent[1:]):
        assert ciphertext.hex() not in text
        assert repr(ciphertext)[2:-1] not in text
