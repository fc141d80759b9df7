"""What Fernet, and Django libraries on top of it, wrote is read; the values are of the real libraries."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet

from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.fields import importer
from tests.fields.importing.write_django import FORMER, SALT, SECRET, VALUES

ROOT = Path(__file__).resolve().parents[3]
UNTIL = date(2099, 12, 31)
FORMATS: dict[str, dict[str, Any]] = {
    "django_cryptography": {"format": "django-cryptography"},
    "encrypted_fields": {"format": "django-fernet-encrypted-fields", "salts": [SALT]},
    "fernet_fields": {"format": "django-fernet-fields"},
}


def test_tokens_of_fernet_and_multifernet_are_read() -> None:
    new, old = Fernet.generate_key(), Fernet.generate_key()
    reading = importer("fernet", keys=[new, old.decode()], until=UNTIL)
    for writer in (Fernet(new), Fernet(old), MultiFernet([Fernet(new), Fernet(old)])):
        assert reading.read(writer.encrypt("né✓".encode())) == "né✓"
        assert reading.read(writer.encrypt(b"").decode()) == ""
    assert reading.count == 6


def test_bytes_stay_bytes_and_are_no_text_by_force() -> None:
    key = Fernet.generate_key()
    token = Fernet(key).encrypt(b"\xff\x00")
    assert importer("fernet", keys=key, until=UNTIL, type=bytes).read(token) == b"\xff\x00"
    with pytest.raises(InvalidInputError, match="type bytes"):
        importer("fernet", keys=key, until=UNTIL).read(token)


def test_another_key_and_another_form_are_refused() -> None:
    reading = importer("fernet", keys=Fernet.generate_key(), until=UNTIL)
    token = Fernet(Fernet.generate_key()).encrypt(b"value")
    with pytest.raises(DecryptionError, match="another key, or altered"):
        reading.read(token)
    for other in (b"", b"value", token[:-4], token + b"====", b"g" + token, token.replace(b"gAAA", b"hAAA", 1)):
        assert not reading.recognises(other)
        with pytest.raises(InvalidCiphertextError):
            reading.read(other)
    assert reading.count == 0


@pytest.mark.parametrize("library", FORMATS)
def test_rows_of_django_libraries_are_read_under_the_key_of_now_and_a_former_one(tmp_path: Path, library: str) -> None:
    file = tmp_path / "django.db"
    for secret in (FORMER, SECRET):
        command = [sys.executable, "-W", "error", "-m", "tests.fields.importing.write_django", str(file)]
        done = subprocess.run([*command, library, secret], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    options = {**FORMATS[library], "keys": [SECRET, FORMER], "until": UNTIL}
    with closing(sqlite3.connect(file)) as db:
        rows = db.execute(f"SELECT {', '.join(VALUES)} FROM people").fetchall()
    assert len(rows) == 2
    for row in rows:
        for (name, value), stored in zip(VALUES.items(), row, strict=True):
            reading = importer(**options, type=type(value))
            assert reading.recognises(stored)
            assert reading.read(stored) == value, name


def test_fernet_keys_of_django_fernet_fields_are_taken_as_they_are_where_it_did_so() -> None:
    key = Fernet.generate_key()
    reading = importer("django-fernet-fields", keys=key, use_hkdf=False, until=UNTIL)
    assert reading.read(Fernet(key).encrypt(b"value")) == "value"
