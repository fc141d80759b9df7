"""Inserting and listing objects of a Django model with one encrypted field, and of the same model in clear.

In an SQLite database in memory. The model has six plain columns and a unique one, the address. It is there twice: with
a primary key that the database draws, beside which there is a row key, and with one that Python draws.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import process_time_ns
from typing import Any, Final

from benchmarks.timing import Loop, Sample, measure
from keystead.blocking import KeyManager
from keystead.testing import FakeKMS

ROWS: Final = 10_000
CELL_MS: Final = 400.0
BAR: Final = 2.0
"""How much longer inserting takes at most than in clear."""
PLAIN: Final = "in clear"
OURS: Final = "encrypted, unique"
DRAWN_BY_DATABASE: Final = "primary key of the database"
DRAWN_BY_PYTHON: Final = "UUID of Python"


@dataclass(frozen=True, slots=True)
class DjangoFigures:
    """Nanoseconds for all rows, by the kind of primary key and then what is in the column.

    ``decryptions`` is how many values were opened while rows were listed; ``absent`` says why nothing was measured.
    """

    inserted: dict[str, dict[str, Sample]]
    listed: dict[str, dict[str, Sample]]
    decryptions: int = 0
    absent: str = ""

    def times(self, key: str) -> float:
        """Return how much longer inserting takes than in clear."""
        return self.inserted[key][OURS].ratio_to(self.inserted[key][PLAIN])


def run(folder: Path, *, rounds: int) -> DjangoFigures:
    """Measure everything of this module, in turn."""
    try:
        models = _models()
    except ImportError as exc:
        return DjangoFigures({}, {}, absent=f"not installed: no module `{exc.name}` on this Python")
    from django.db import connection

    from keystead.integrations.django import bind

    with connection.schema_editor() as editor:
        for model in (each for pair in models.values() for each in pair.values()):
            editor.create_model(model)
    draw = Random(1)
    addresses = [f"{draw.getrandbits(48):x}@example.org" for _ in range(ROWS)]
    with KeyManager({"fake": FakeKMS()}, default_key_id="k", store=f"sqlite:///{folder}/django.db") as km:
        binding = bind(km)
        inserts = [{name: _insert(each, addresses) for name, each in pair.items()} for pair in models.values()]
        inserted = measure(inserts, rounds=rounds, cell_ms=CELL_MS)
        for pair in models.values():
            for model in pair.values():
                _fill(model, addresses)
        opened = 0
        for pair in models.values():
            cipher = binding.cipher(pair[OURS]._meta.get_field("email").spec)

            def counted(*given: Any, found: Callable[..., object] = cipher.decrypt, **whose: Any) -> object:
                nonlocal opened
                opened += 1
                return found(*given, **whose)

            cipher.decrypt = counted  # type: ignore[method-assign]
        lists = [{name: _list(each) for name, each in pair.items()} for pair in models.values()]
        listed = measure(lists, rounds=rounds, cell_ms=CELL_MS)
    return DjangoFigures(
        dict(zip(models, inserted, strict=True)), dict(zip(models, listed, strict=True)), decryptions=opened
    )


def _models() -> dict[str, dict[str, Any]]:
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["keystead.integrations.django"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()
    from django.db import models

    from keystead.integrations.django import EncryptedEmailField

    def made(name: str, **fields: Any) -> Any:
        members = {
            "__module__": __name__,
            "Meta": type("Meta", (), {"app_label": "keystead"}),
            "name": models.CharField(max_length=50),
            "city": models.CharField(max_length=50, default=""),
            "visits": models.IntegerField(default=0),
            "is_active": models.BooleanField(default=True),
            "joined": models.DateTimeField(null=True),
            "about": models.TextField(default=""),
            **fields,
        }
        return type(name, (models.Model,), members)

    def key() -> Any:
        return models.UUIDField(primary_key=True, default=uuid.uuid4)

    return {
        DRAWN_BY_DATABASE: {
            PLAIN: made("Plain", email=models.EmailField(unique=True)),
            OURS: made("Sealed", email=EncryptedEmailField(unique=True)),
        },
        DRAWN_BY_PYTHON: {
            PLAIN: made("PlainById", id=key(), email=models.EmailField(unique=True)),
            OURS: made("SealedById", id=key(), email=EncryptedEmailField(unique=True)),
        },
    }


def _fill(model: Any, addresses: list[str]) -> int:
    """Insert objects into the emptied table, and return how long that took."""
    model.objects.all().delete()
    made = [model(name=f"person {at}", email=address) for at, address in enumerate(addresses)]
    start = process_time_ns()
    model.objects.bulk_create(made)
    return process_time_ns() - start


def _insert(model: Any, addresses: list[str]) -> Loop:
    return lambda times: sum(_fill(model, addresses) for _ in range(times))


def _list(model: Any) -> Loop:
    def loop(times: int) -> int:
        start = process_time_ns()
        for _ in range(times):
            for each in model.objects.all():
                _ = each.name
        return process_time_ns() - start

    return loop
