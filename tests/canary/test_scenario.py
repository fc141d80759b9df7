"""One run through everything, failures included, with canaries in every place a secret can be; none may sing.

Searched: what all loggers say at DEBUG (SQLAlchemy's statements and rows included), reprs, errors and their
tracebacks, warnings, standard output, metrics, and every file that the run leaves: database, journal, export,
temporary files.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import sqlite3
import tempfile
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from typer.testing import CliRunner

from keystead import (
    KeyManager,
    KMSError,
    LocalKMSConfig,
    LocalKMSProvider,
    ProviderAuthError,
    ProviderConnectionError,
    RootKeyGenerator,
    SecretBytes,
    inspect,
    telemetry,
)
from keystead.cli.main import build_app
from keystead.manager import admin, backup
from keystead.testing import FakeKMS
from tests.canary.watch import SecretWatch, learning, listening

PLAINTEXT = "canary-plaintext-of-the-tests"
CONTEXT = "canary-context-of-the-tests"
PASSPHRASE = "canary-passphrase-of-the-tests"
PASSWORD = "canary-password-of-the-tests"
SEED = "canary-seed-of-the-tests-0123456789"
PAYLOAD = "canary-payload-of-an-sdk"
WORDS = (PLAINTEXT, CONTEXT, PASSPHRASE, PASSWORD, SEED, PAYLOAD)
FORMS: tuple[Callable[[str], bytes], ...] = (
    lambda word: word.encode(),
    lambda word: word.encode().hex().encode(),
    lambda word: base64.b64encode(word.encode()).rstrip(b"=")[:-2],
)
DATA = PLAINTEXT.encode()
BOUND = {"row": CONTEXT}


class Heard:
    """Everything the run lets out, and the watch that knows its keys."""

    def __init__(self) -> None:
        self.watch = SecretWatch()
        self.texts: dict[str, str] = {}

    def say(self, where: str, text: str) -> None:
        self.texts[f"{where} {len(self.texts)}"] = text

    def show(self, *things: object) -> None:
        for thing in things:
            self.say(f"repr of {type(thing).__name__}", f"{thing!r} {thing}")

    async def fails(self, call: Any) -> None:
        """Make a call that must fail, and keep what the error says."""
        try:
            await call()
        except (KMSError, TypeError) as exc:
            self.say(f"error {type(exc).__name__}", f"{exc} {exc!r} {''.join(traceback.format_exception(exc))}")
        else:
            pytest.fail(f"a call that had to fail did not: line {call.__code__.co_firstlineno}")

    def finds(self, name: str, data: bytes) -> list[str]:
        words = [f"{name}: {word}" for word in WORDS if any(form(word) in data for form in FORMS)]
        return words + [f"{name}: a key as {form}" for form in self.watch.find_in_bytes(data)]


class AllRecords(logging.Handler):
    """Keeps what every logger says, whether or not it looks like a key."""

    def __init__(self, heard: Heard) -> None:
        super().__init__(logging.NOTSET)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        text = logging.Formatter("%(name)s %(message)s").format(record)
        record.exc_text = None
        self._heard.say("log", f"{text} {vars(record)!r}")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Heard]:
    """Ears everywhere: loggers, metrics, temporary files."""
    made = Heard()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    reader = InMemoryMetricReader()
    instruments = telemetry.Instruments.of(MeterProvider([reader]).get_meter("canary"))
    monkeypatch.setattr(telemetry, "instruments", lambda: instruments)
    loggers = [(name, logging.DEBUG) for name in ("", "keystead", "sqlalchemy", "aiosqlite", "alembic", "asyncio")]
    records = AllRecords(made)
    with learning(made.watch), listening(made.watch, *loggers), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        logging.getLogger().addHandler(records)
        try:
            yield made
        finally:
            logging.getLogger().removeHandler(records)
    data = reader.get_metrics_data()
    made.say("metrics", data.to_json() if data else "")
    for one in warned:
        made.say("warning", str(one.message))


@asynccontextmanager
async def opened(url: str, kms: FakeKMS) -> AsyncIterator[KeyManager]:
    local = LocalKMSProvider(LocalKMSConfig(passphrase=PASSPHRASE, salt=b"salt of the tests"))
    providers: dict[str, Any] = {"local": local, "cloud": kms.provider("cloud")}
    async with KeyManager(providers, default_provider="cloud", default_key_id="app", store=url) as km:
        yield km


async def use(km: KeyManager, heard: Heard) -> None:
    """Call every member that takes or gives a secret."""
    sealed = km.local_encrypt(DATA, context=BOUND)
    heard.show(inspect(sealed), km, km.default, km.default.ring, km.default.ring.snapshot)
    heard.show(*km.default.ring.snapshot.keys.values())
    await km.rotate_data_key()
    assert await km.reencrypt(sealed, context=BOUND) != sealed
    for provider in ("local", "cloud"):
        data = await km.encrypt(DATA, key_id="app", provider=provider)
        assert await km.decrypt(data) == DATA
        field = await km.encrypt_field({"value": PLAINTEXT}, "app", provider=provider)
        assert await km.decrypt_field(field) == {"value": PLAINTEXT}
        pair = await km.generate_data_key("app", provider=provider)
        assert pair.decrypt(pair.encrypt(DATA)) == DATA
        heard.show(data, field, pair, pair.plaintext_key)
    named = await km.crypto_service.encrypt_batch({"ssn": DATA})
    await km.crypto_service.decrypt_batch(named)
    heard.show(named["ssn"], km.hash_field(PLAINTEXT), await km.get_status(), km.get_rotation_policy())
    acme = await km.keyring("acme")
    await acme.rotate()
    target = io.BytesIO()
    await km.encrypt_stream(io.BytesIO(DATA * 100), target, context=BOUND)
    await km.decrypt_stream(io.BytesIO(target.getvalue()), io.BytesIO(), context=BOUND)
    await km.perform_maintenance()
    heard.show(await admin.rewrap(km), await admin.list_keys(km), await km.data_keys.get_active_data_key())


async def fail(km: KeyManager, kms: FakeKMS, heard: Heard) -> None:
    """Fail in every way that is near a secret."""
    sealed = km.local_encrypt(DATA, context=BOUND)
    data = await km.encrypt(DATA, context=BOUND)
    field = await km.crypto_service.encrypt_field("ssn", DATA)

    async def later(call: Callable[[], object]) -> object:
        return call()

    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: later(lambda: km.local_encrypt(PLAINTEXT)),  # type: ignore[arg-type]
        lambda: later(lambda: km.local_encrypt(DATA, context={"row": DATA})),  # type: ignore[dict-item]
        lambda: later(lambda: km.local_decrypt(sealed)),
        lambda: later(lambda: km.local_decrypt(sealed[:-1] + b"\x00", context=BOUND)),
        lambda: km.decrypt_local(sealed[:2] + bytes(8) + sealed[10:], context=BOUND),
        lambda: km.decrypt(data, context={"row": PLAINTEXT}),
        lambda: km.decrypt(PLAINTEXT),
        lambda: km.encrypt(PLAINTEXT),  # type: ignore[arg-type]
        lambda: km.encrypt_field(PLAINTEXT, field_type="json5"),
        lambda: km.encrypt_field(object(), field_type="text"),
        lambda: km.crypto_service.decrypt_field(field, PLAINTEXT),
        lambda: km.encrypt(DATA, provider=PAYLOAD.upper()),
        lambda: later(lambda: LocalKMSConfig(master_key=DATA)),
        lambda: later(lambda: RootKeyGenerator(seed=SEED, salt="", iterations=10_000, key_length=32).validate_config()),
        lambda: later(lambda: KeyManager.open("local:", store=f"mysql://u:{PASSWORD}@host/keys")),
        lambda: later(lambda: json.dumps(km.default.ring.snapshot.active_key)),
    ]
    for call in calls:
        await heard.fails(call)
    for error in (ValueError(PAYLOAD), OSError(PAYLOAD), ProviderConnectionError("down"), ProviderAuthError("denied")):
        kms.fail_next(9, error)
        await heard.fails(lambda: km.encrypt(DATA, context=BOUND))
        await heard.fails(lambda: km.decrypt(data))
        kms.heal()
    unreachable = KeyManager(
        {"cloud": kms.provider("cloud")},
        default_key_id="app",
        store=f"postgresql://keeper:{PASSWORD}@127.0.0.1:1/keys",
        initialization_timeout=20,
    )
    heard.show(unreachable)
    await heard.fails(unreachable.initialize)
    await unreachable.close()


def damage(path: Path, version: int) -> None:
    """Alter a wrapped data key of one keyring."""
    with sqlite3.connect(path) as database:
        database.execute(
            "UPDATE data_keys SET wrapped_key = zeroblob(94) WHERE keyring = 'acme' AND version = ?", (version,)
        )
    database.close()


def search(heard: Heard, folder: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was found in everything the run said and left; the KEK's own file may hold the KEK."""
    out, err = capfd.readouterr()
    heard.say("stdout", out)
    heard.say("stderr", err)
    left = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".kek"}
    assert any(name.endswith("keys.db") for name in left)
    assert any(name.endswith(".journal") for name in left)
    # A driver's thread may still be saying good-bye.
    texts = {name: text.encode("utf-8", "replace") for name, text in dict(heard.texts).items()}
    return [hit for name, data in {**texts, **left}.items() for hit in heard.finds(name, data)]


async def test_no_canary_is_heard_anywhere(heard: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kms = FakeKMS()
    url = f"sqlite:///{tmp_path}/keys.db"
    heard.show(kms, LocalKMSConfig(passphrase=PASSPHRASE, salt=b"salt of the tests"))
    async with opened(url, kms) as km:
        await use(km, heard)
        await fail(km, kms, heard)
        exported = await backup.export_text(km)
        (tmp_path / "export.json").write_text(exported)
        copy = KeyManager({"cloud": kms.provider("cloud")}, default_key_id="app", store=f"sqlite:///{tmp_path}/copy.db")
        heard.show(await backup.import_export(copy, backup.read_export(exported)))
        await copy.initialize()
        heard.show(await backup.recover(copy))
        await copy.close()
    await heard.fails(lambda: opened(url, FakeKMS()).__aenter__())
    damage(tmp_path / "keys.db", version=1)
    async with opened(url, kms) as km:
        await km.keyring("acme", create=False)
    damage(tmp_path / "keys.db", version=2)
    async with opened(url, kms) as km:
        await heard.fails(lambda: km.keyring("acme", create=False))
    assert any("data_key_id" in text for text in heard.texts.values())
    assert heard.watch.records > 100
    assert search(heard, tmp_path, capfd) == []


def test_no_canary_is_heard_on_the_command_line(
    heard: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = build_app()

    def run(*arguments: str, given: bytes = b"", code: int = 0) -> str:
        result = CliRunner().invoke(app, arguments, input=given)
        assert result.exit_code == code, (arguments, result.output)
        if arguments[0] != "decrypt" or code:
            heard.say(f"output of {arguments[0]}", result.output)
        return result.stdout

    run("init")
    sealed = run("encrypt", "--text", "--context", "row=1", given=DATA).strip()
    assert run("decrypt", "--context", "row=1", given=sealed.encode()) == PLAINTEXT
    run("decrypt", given=sealed.encode(), code=3)
    run("key", "rotate")
    run("key", "list", "--json")
    run("key", "rewrap")
    run("inspect", given=sealed.encode())
    run("store", "export", "export.json")
    run("store", "verify", "export.json")
    run("status", "--json")
    run("maintain")
    assert search(heard, tmp_path, capfd) == []


def test_a_planted_canary_is_found(heard: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    key = SecretBytes(b"a planted key of thirty-two byte")
    (tmp_path / "keys.db").write_bytes(b"header" + bytes(memoryview(key)))
    (tmp_path / "some.journal").touch()
    logging.getLogger("keystead.planted").debug("with %s", PLAINTEXT)
    print(PASSWORD)
    found = " ".join(search(heard, tmp_path, capfd))
    assert all(planted in found for planted in ("keys.db: a key as raw", PLAINTEXT, PASSWORD))
