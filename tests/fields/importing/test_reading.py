"""The importer itself: its end, its count, what it takes for its own, and what it refuses when it is made."""

from __future__ import annotations

import base64
import logging
import threading
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet

from keystead import telemetry
from keystead.crypto.codec import ValueType
from keystead.errors import DecryptionError, ImportEndedError, InvalidCiphertextError, InvalidInputError
from keystead.fields import Importer, importer
from keystead.fields.importing import FORMATS, ImportingCipher
from tests.fakes.clock import START, FakeClock
from tests.fakes.world import World
from tests.fields.application import EMAIL

KEY = Fernet.generate_key()
TOKEN = Fernet(KEY).encrypt(b"value")


def fernet(**options: Any) -> Importer:
    """Return an importer of tokens."""
    given: dict[str, Any] = {"keys": KEY, "until": date(2099, 12, 31), **options}
    return importer("fernet", **given)


@pytest.mark.parametrize(
    ("until", "last"),
    [
        (date(2030, 1, 1), timedelta(days=1)),
        (datetime(2030, 1, 1, 12, tzinfo=UTC), timedelta(hours=12)),
        (datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))), timedelta(hours=10)),
    ],
)
def test_it_reads_until_its_end_and_never_after(clock: FakeClock, until: Any, last: timedelta) -> None:
    reading = fernet(until=until, clock=clock)
    clock.advance(last - timedelta(seconds=1))
    assert reading.read(TOKEN) == "value"
    clock.advance(1)
    for _ in range(2):
        with pytest.raises(ImportEndedError, match="later until=") as caught:
            reading.read(TOKEN)
    assert caught.value.code == "import_ended"
    assert (reading.count, reading.recognises(TOKEN)) == (1, True)


@pytest.mark.parametrize("until", [START.replace(tzinfo=None), "2030-01-01", None, 5])
def test_an_end_is_an_aware_time_or_a_day(until: Any) -> None:
    with pytest.raises(InvalidInputError, match="until="):
        fernet(until=until)


def test_an_end_is_required() -> None:
    with pytest.raises(TypeError, match="until"):
        importer("fernet", keys=KEY)  # type: ignore[call-arg]


def test_what_was_read_is_counted_and_what_failed_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(telemetry, "legacy_read", lambda form, number: told.append((form, number)))
    reading = fernet()
    found = reading.read_many([TOKEN, b"in clear", TOKEN, Fernet(Fernet.generate_key()).encrypt(b"")])
    assert [type(one) for one in found] == [str, InvalidCiphertextError, str, DecryptionError]
    assert (reading.count, told) == (2, [("fernet", 2)])
    assert "2 read" in repr(reading)


def test_the_first_that_is_read_is_logged_with_the_end_and_without_its_value(caplog: pytest.LogCaptureFixture) -> None:
    reading = fernet()
    with caplog.at_level(logging.WARNING, "keystead.fields"):
        for _ in range(3):
            reading.read(TOKEN)
    [record] = caplog.records
    assert (vars(record)["format"], vars(record)["until"]) == ("fernet", "2100-01-01T00:00:00+00:00")
    assert "value" not in record.getMessage().replace("values", "")


def test_threads_count_together() -> None:
    reading = fernet()
    threads = [threading.Thread(target=reading.read_many, args=([TOKEN] * 50,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reading.count == 400


def test_an_error_names_the_record_and_nothing_of_the_value() -> None:
    value = Fernet(Fernet.generate_key()).encrypt(b"value")
    with pytest.raises(DecryptionError, match="another key, or altered bytes") as caught:
        fernet().read(value, record=42)
    assert "record 42" in str(caught.value)
    assert value.decode() not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("type", "plaintext", "value"),
    [
        (str, "né", "né"),
        (bytes, "né", "né".encode()),
        (int, "-42", -42),
        (float, "2.5", 2.5),
        (bool, "True", True),
        (bool, "false", False),
        (Decimal, "1.50", Decimal("1.50")),
        (date, "1815-12-10", date(1815, 12, 10)),
        (datetime, "2026-02-01 08:15:30+02:00", datetime(2026, 2, 1, 6, 15, 30, tzinfo=UTC)),
        (UUID, "12345678123456781234567812345678", UUID("12345678123456781234567812345678")),
        (dict, '{"a": [1, null]}', {"a": [1, None]}),
    ],
)
def test_values_come_in_the_type_that_is_declared(type: Any, plaintext: str, value: object) -> None:
    assert fernet(type=type).read(Fernet(KEY).encrypt(plaintext.encode())) == value


@pytest.mark.parametrize(
    ("type", "plaintext"),
    [(int, "1_000"), (int, " 1"), (int, "9" * 5000), (bool, "yes"), (date, "10.12.1815"), (dict, "{"), (float, "x")],
)
def test_what_is_not_of_the_type_is_refused(type: Any, plaintext: str) -> None:
    reading = fernet(type=type)
    with pytest.raises(InvalidInputError, match="is no "):
        reading.read(Fernet(KEY).encrypt(plaintext.encode()))
    assert reading.count == 0


def test_each_format_says_what_it_needs_and_loads_when_it_is_made() -> None:
    for name in FORMATS:
        with pytest.raises(InvalidInputError, match=name):
            importer(name, until=date(2099, 12, 31), nonsense=1)
    with pytest.raises(InvalidInputError, match="there are aws-encryption-sdk"):
        importer("rot13", until=date(2099, 12, 31))


async def test_a_field_reads_both_forms_through_an_importer_and_writes_its_own(world: World) -> None:
    async with world.open() as km:
        plain = km.field(EMAIL)
        cipher = ImportingCipher(plain, fernet())
        sealed = cipher.encrypt("new", record=1)
        assert sealed is not None
        assert cipher.decrypt_many([(TOKEN, 1), (None, 2), (sealed, 1)]) == ["value", None, "new"]
        assert (cipher.needs_reencrypt(TOKEN), cipher.needs_reencrypt(sealed)) == (True, False)
        assert plain.decrypt(cipher.reseal(TOKEN, record=1), record=1) == "value"
        with pytest.raises(InvalidCiphertextError):
            plain.decrypt(TOKEN, record=1)
        with pytest.raises(DecryptionError):
            cipher.decrypt(sealed, record=2)
        assert not cipher.importer.recognises(sealed)


class Greedy:
    """A form that takes anything for its own."""

    def recognises(self, value: bytes) -> bool:
        """Return True."""
        return True

    def open(self, value: bytes) -> object:
        """Return the value itself."""
        return value


async def test_a_form_that_looks_like_anything_is_not_tried_on_keysteads_own(world: World) -> None:
    reading = Importer("greedy", Greedy(), until=START.replace(year=2099), kind=ValueType.BYTES, clock=world.clock)
    assert reading.recognises(b"anything")
    assert reading.read(b"anything") == b"anything"
    async with world.open() as km:
        sealed = km.field(EMAIL).encrypt("value", record=1)
        assert sealed is not None
        assert not reading.recognises(sealed)
        with pytest.raises(InvalidCiphertextError):
            reading.read(sealed)


class Nobody:
    """Opens nothing."""

    async def decrypt_texts(self, texts: Any, key_id: str, **more: Any) -> list[Any]:
        """Fail."""
        raise AssertionError(texts)


@pytest.mark.parametrize(
    "value",
    [
        Fernet(KEY).encrypt(b"").decode(),
        importer("sqlalchemy-utils", keys="k", until=date(2099, 12, 31)).form_of("a"),
        "vault:v1:" + base64.b64encode(bytes(28)).decode(),
        base64.b64encode(bytes(28)).decode(),
    ],
    ids=["fernet", "sqlalchemy-utils", "vault", "sqlalchemy-utils with GCM"],
)
def test_a_value_has_one_spelling(value: str) -> None:
    forms = [
        fernet(),
        importer("sqlalchemy-utils", keys="k", until=date(2099, 12, 31)),
        importer("sqlalchemy-utils", keys="k", engine="aes-gcm", until=date(2099, 12, 31)),
        importer("vault", provider=Nobody(), key="k", until=date(2099, 12, 31)),
    ]
    assert value.endswith("=")
    assert any(each.recognises(value) for each in forms)
    body = value.rstrip("=")
    spare = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = spare[(spare.index(body[-1]) + 1) % 64]
    for other in (body, value + "=", f"{body[:-1]}{last}{'=' * (len(value) - len(body))}", f"{value}\n", f" {value}"):
        assert not any(each.recognises(other) for each in forms), other


def test_what_is_no_value_of_a_column_is_refused() -> None:
    for value in (5, None, ["x"], object()):
        assert not fernet().recognises(value)
        with pytest.raises(InvalidInputError, match="bytes, text or the object"):
            fernet().read(value)  # type: ignore[arg-type]
    with pytest.raises(InvalidCiphertextError, match="not UTF-8"):
        fernet().read("\ud800")
