"""The command that goes on with a re-encryption says what the job was begun with, and nothing is begun anew."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import typer

from keystead.cli.frame import Call
from keystead.fields import Exact, Field, Normalised, Prefix, Tokens
from keystead.fields.commands import beginning_of, command_of
from keystead.fields.job_records import Target
from keystead.model.patterns import OF_SUBJECTS
from keystead.ports import FieldRecord, ReencryptionRecord
from tests.cli.conftest import Cli

URL = "postgresql://app@db.example/shop?sslmode=verify-full"
DECLARED = [
    Field("people", "email"),
    Field("shop.people", "email", type="bytes", id="people.mail", encrypt_null=True),
    Field("people", "email", record=("shop", "id"), record_type=(None, UUID), tenant="org", tenant_type=str),
    Field("people", "email", tenant="org", keyring="people-{tenant}", former_keyrings=("default", "old-{tenant}")),
    Field("people", "email", per_subject=True),
    Field("orders", "note", subject="person_id", subject_kind="people", subject_type=UUID),
    Field("people", "email", per_subject=True, subject_kind="persons"),
    Field(
        "people",
        "email",
        indexes=(Exact(unique=True), Normalised(as_="email", size=8), Prefix(length=3), Tokens(size=4)),
        index_keyring="people-index",
    ),
]


def job_of(field: Field, **target: Any) -> ReencryptionRecord:
    """Return a job of a field."""
    given: dict[str, Any] = {"active": 1, "indexes": (), "verify": False, "plaintext": None, "key": ("id",), **target}
    locator = f"sql:{URL}#{field.table}.{field.column}"
    return ReencryptionRecord("0" * 16, field.id, locator, 500, Target(field=field, **given).to_json())


@pytest.mark.parametrize("field", DECLARED)
@pytest.mark.parametrize("plaintext", [None, "email_plain"])
def test_the_command_of_a_job_declares_the_field_of_the_job(
    field: Field, plaintext: str | None, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[partial[Any]] = []

    def run(call: Call, action: partial[Any]) -> None:
        asked.append(action)
        raise typer.Exit(0)

    monkeypatch.setattr(Call, "run", run)
    job = job_of(field, plaintext=plaintext, key=("shop", "id"))
    command = command_of(job)
    assert command is not None
    cli.ok(*shlex.split(command)[1:], "--plan")
    [(url, found, _), options] = asked[0].args, asked[0].keywords
    assert url == URL
    assert job_of(found, plaintext=options["plaintext_column"], key=options["key_column"]) == job
    assert "--dry-run" in (command_of(replace(job, dry_run=True)) or "")


def test_of_what_no_command_says_there_is_none() -> None:
    plain = Field("people", "email")
    job = job_of(plain)
    for other in (
        job_of(plain, importing="fernet"),
        job_of(Field("people", "email", record_type=int)),
        replace(job, locator="app:people"),
        replace(job, target=json.dumps({"direction": "rewrap"})),
        replace(job, target="no JSON"),
        replace(job, target="[]"),
    ):
        assert command_of(other) is None
    assert command_of(replace(job, field_id="people.email@0123abcd")) == command_of(job)


def test_the_command_that_begins_one_says_what_is_registered() -> None:
    locator = f"sql:{URL}#people.email"
    assert beginning_of(FieldRecord("people.email", "default", None, locator)) == shlex.join(
        ["keystead", "reencrypt", URL, "people.email"]
    )
    told = beginning_of(FieldRecord("mail", "orders", "other", locator))
    assert told is not None
    assert told.endswith("people.email --id mail --keyring orders --index-keyring other")
    subjects = beginning_of(FieldRecord("people.email", OF_SUBJECTS, None, locator))
    assert subjects is not None
    assert subjects.endswith("people.email --per-subject")
    assert beginning_of(FieldRecord("people.email", "default", None, "app:people")) is None
