"""Django's own migrations make every column, need no key, and hold no value."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connections, models
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter
from django.test.utils import isolate_apps

from keystead import blocking
from keystead.errors import DecryptionError, InvalidInputError
from keystead.integrations.django import EncryptedCharField, Exact, bind, binding
from tests.integrations.django.conftest import connected
from tests.integrations.django.shop.models import Person

_APP = "shop"


@pytest.fixture
def written(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package for the application's migrations, beside an empty database and no keys."""
    connected(url)
    package = tmp_path / f"written_{abs(hash(url)) % 10**8}"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(settings, "MIGRATION_MODULES", {_APP: package.name}, raising=False)
    monkeypatch.setattr(binding, "_held", [])
    yield package
    connections["default"].close()
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def _run(name: str, *given: str, **options: Any) -> str:
    importlib.invalidate_caches()
    said = StringIO()
    call_command(name, *given, stdout=said, stderr=said, **options)
    return said.getvalue()


def test_migrations_are_made_and_applied_without_a_key(written: Path, kms: Any) -> None:
    _run("makemigrations", _APP)
    text = (written / "0001_initial.py").read_text()
    assert "EncryptedEmailField(indexes=[keystead.integrations.django.Exact(unique=True)" in text
    assert "('email_exact_0', keystead.integrations.django.HashField(unique=True))" in text
    assert "('keystead_row', keystead.integrations.django.RowKeyField())" in text
    assert "PersonNoteTokens" in text
    _run("migrate", _APP)
    assert "No changes detected" in _run("makemigrations", _APP, check=True)
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        bind(km)
        Person.objects.create(email="a@example.org", note="likes tea")
        assert Person.objects.get(email="a@example.org", note__has_token="tea").note == "likes tea"
        old = MigrationExecutor(connections["default"]).loader.project_state((_APP, "0001_initial")).apps
        historical = old.get_model(_APP, "Person")
        assert historical.objects.get(email="a@example.org").email == "a@example.org"
        historical.objects.create(email="b@example.org")
        assert Person.objects.get(email="b@example.org").email == "b@example.org"


_BEFORE = """
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Thing",
            [("id", models.BigAutoField(primary_key=True)), ("title", models.CharField(max_length=20))],
        ),
    ]
"""


def test_a_field_is_added_to_a_model_without_a_question(tmp_path: Path) -> None:
    """As a deployment runs it: nobody is there who could answer."""
    for package in ("things", "things/migrations"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "settings.py").write_text(
        'INSTALLED_APPS = ["keystead.integrations.django", "things"]\n'
        'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "app.db"}}\n'
    )
    (tmp_path / "things/migrations/0001_initial.py").write_text(_BEFORE)
    (tmp_path / "things/models.py").write_text(
        "from django.db import models\n"
        "from keystead.integrations.django import EncryptedCharField\n\n\n"
        "class Thing(models.Model):\n"
        "    id = models.BigAutoField(primary_key=True)\n"
        "    title = models.CharField(max_length=20)\n"
        "    secret = EncryptedCharField(null=True, unique=True)\n"
    )
    paths = [str(tmp_path), *filter(None, (str(Path(each).resolve()) for each in sys.path))]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": os.pathsep.join(paths)}
    for given in (["makemigrations", "things"], ["makemigrations", "--check"], ["migrate"]):
        done = subprocess.run(
            [sys.executable, "-m", "django", *given],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "unique" not in done.stdout, done.stdout
    [made] = (tmp_path / "things/migrations").glob("0002_*.py")
    assert "RowKeyField()" in made.read_text()


def _state(*fields: tuple[str, Any]) -> ProjectState:
    state = ProjectState()
    state.add_model(ModelState(_APP, "Thing", [("id", models.BigAutoField(primary_key=True)), *fields]))
    return state


def _declared(name: str, field: Any) -> ProjectState:
    """Return the state of a model that declares a field, with what was added beside it."""
    with isolate_apps("tests.integrations.django.shop"):
        model = type(
            "Thing",
            (models.Model,),
            {
                "__module__": "tests.integrations.django.shop.models",
                "Meta": type("Meta", (), {"app_label": _APP}),
                "title": models.CharField(max_length=20),
                name: field,
            },
        )
        state = ProjectState()
        state.add_model(ModelState.from_model(model))
        return state


def test_a_field_is_added_to_a_table_with_rows(url: str) -> None:
    connected(url)
    before = _state(("title", models.CharField(max_length=20)))
    after = _declared("secret", EncryptedCharField(null=True, unique=True))
    with connections["default"].schema_editor() as editor:
        editor.create_model(before.apps.get_model(_APP, "Thing"))
    with connections["default"].cursor() as cursor:
        cursor.execute("INSERT INTO shop_thing (title) VALUES ('a'), ('b'), ('c')")
    _apply(before, after)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT keystead_row, secret FROM shop_thing")
        rows = cursor.fetchall()
    assert len({str(row[0]) for row in rows}) == 3
    assert {row[1] for row in rows} == {None}
    if url.startswith("sqlite"):
        assert all(len(row[0]) == 32 and row[0][12] == "4" and row[0][16] in "89ab" for row in rows)
    _apply(after, before)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT * FROM shop_thing")
        assert len(cursor.fetchall()[0]) == 2
    connections["default"].close()


def test_a_column_whose_type_alone_was_changed_gives_nothing_in_clear(url: str, kms: Any) -> None:
    """Without plaintext= its values stay as they are: they are told from what was sealed, and not lost."""
    connected(url)
    before = _state(("title", models.CharField(max_length=20)), ("secret", models.CharField(max_length=20)))
    with connections["default"].schema_editor() as editor:
        editor.create_model(before.apps.get_model(_APP, "Thing"))
    with connections["default"].cursor() as cursor:
        cursor.execute("INSERT INTO shop_thing (title, secret) VALUES ('a', 'in clear')")
    after = _declared("secret", EncryptedCharField())
    _apply(before, after)
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        bind(km)
        things = after.apps.get_model(_APP, "Thing").objects
        reads: tuple[Callable[[], Any], ...] = (
            lambda: things.get().secret,
            lambda: things.values_list("secret", flat=True).get(),
        )
        for read in reads:
            with pytest.raises(DecryptionError):
                read()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT secret FROM shop_thing")
        held = cursor.fetchall()[0][0]
    assert (held.encode() if isinstance(held, str) else bytes(held)) == b"in clear"
    connections["default"].close()


def test_a_default_is_never_written_by_a_migration(url: str) -> None:
    connected(url)
    before = _state(("title", models.CharField(max_length=20)))
    with connections["default"].schema_editor() as editor:
        editor.create_model(before.apps.get_model(_APP, "Thing"))
    with pytest.raises(InvalidInputError, match="row is not known") as caught:
        _apply(before, _declared("secret", EncryptedCharField(default="confidential")))
    assert "confidential" not in str(caught.value)
    connections["default"].close()


def test_a_table_is_remade_without_a_change_of_its_values(url: str) -> None:
    connected(url)
    before = _declared("secret", EncryptedCharField(null=True, indexes=[Exact()]))
    with connections["default"].schema_editor() as editor:
        editor.create_model(before.apps.get_model(_APP, "Thing"))
    with connections["default"].cursor() as cursor:
        key = "gen_random_uuid()" if url.startswith("postgresql") else "'00000000000040008000000000000000'"
        cursor.execute(
            f"INSERT INTO shop_thing (title, secret, secret_exact_0, keystead_row) VALUES ('a', %s, %s, {key})",
            [b"ciphertext", b"hash"],
        )
    _apply(before, _declared("secret", EncryptedCharField(indexes=[Exact(unique=True)])))
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT secret, secret_exact_0 FROM shop_thing")
        assert [tuple(map(bytes, row)) for row in cursor.fetchall()] == [(b"ciphertext", b"hash")]
    connections["default"].close()


def _apply(before: ProjectState, after: ProjectState) -> None:
    """Do what the migrations between two states do."""
    changes = MigrationAutodetector(before, after)._detect_changes()
    state = before.clone()
    for migration in changes.get(_APP, ()):
        compile(MigrationWriter(migration).as_string(), "migration", "exec")
        with connections["default"].schema_editor() as editor:
            state = migration.apply(state, editor)


def test_every_declaration_is_its_own_deconstruction(url: str) -> None:
    for model in apps.get_app_config(_APP).get_models():
        for field in model._meta.local_fields:
            _, path, args, options = field.deconstruct()
            module, _, name = path.rpartition(".")
            again = getattr(importlib.import_module(module), name)(*args, **options)
            assert again.deconstruct()[1:] == field.deconstruct()[1:]
