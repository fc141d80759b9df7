"""A Django application that is bound to keys, on each database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import connections
from sqlalchemy import make_url

from keystead import blocking
from keystead.testing import FakeKMS

SETTINGS = {
    "INSTALLED_APPS": [
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.admin",
        "keystead.integrations.django",
        "tests.integrations.django.shop",
    ],
    "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "ROOT_URLCONF": "tests.integrations.django.shop.urls",
    "ALLOWED_HOSTS": ["testserver"],
    "SECRET_KEY": "of tests",
    "USE_TZ": True,
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
}
if not settings.configured:
    settings.configure(**SETTINGS)
    django.setup()

from django.contrib.contenttypes.models import ContentType  # noqa: E402

from keystead.integrations.django import Binding, bind  # noqa: E402


@dataclass
class Application:
    """The keys, and what was bound."""

    km: blocking.KeyManager
    kms: FakeKMS
    binding: Binding
    url: str
    statements: list[str] = field(default_factory=list)

    def sql(self, statement: str, *params: object) -> list[Any]:
        """Run a statement as somebody who has no keys, and return its rows."""
        with connections["default"].cursor() as cursor:
            cursor.execute(statement, params)
            return list(cursor.fetchall()) if cursor.description else []


def connected(url: str) -> None:
    """Let the alias ``default`` mean the database at a URL."""
    made = make_url(url)
    given: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": made.database}
    if made.get_backend_name() == "postgresql":
        host = made.host or made.query.get("host", "")
        given = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": made.database,
            "USER": made.username or "",
            "PASSWORD": made.password or "",
            "HOST": host,
            "PORT": str(made.port or made.query.get("port", "")),
        }
    else:
        given["OPTIONS"] = {"timeout": 60, "init_command": "PRAGMA synchronous = OFF"}
    configured = connections.configure_settings({"default": given})["default"]
    connections.settings["default"] = configured
    connections["default"] = connections.create_connection("default")
    # Django keeps the ids of content types, which are others in another database.
    ContentType.objects.clear_cache()


def with_tables(alias: str = "default") -> None:
    """Make every table of the application."""
    from django.apps import apps

    with connections[alias].schema_editor() as editor:
        for model in apps.get_models():
            editor.create_model(model)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind, which other processes can reach."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/app.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture(scope="package")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the application's tables, to be copied."""
    path = tmp_path_factory.mktemp("django") / "template.db"
    connected(f"sqlite:///{path}")
    with_tables()
    connections["default"].close()
    return path


@pytest.fixture
def database(url: str, template: Path) -> Iterator[str]:
    """The same with the application's tables."""
    if url.startswith("sqlite"):
        shutil.copy(template, url.removeprefix("sqlite:///"))
    connected(url)
    if not url.startswith("sqlite"):
        with_tables()
    yield url
    connections["default"].close()


@pytest.fixture(scope="package")
def kms() -> FakeKMS:
    """A KMS that counts its calls."""
    return FakeKMS()


@pytest.fixture
def app(database: str, kms: FakeKMS) -> Iterator[Application]:
    """The application, with a manager of its own."""
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        yield Application(km, kms, bind(km), database)
