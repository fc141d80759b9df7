"""How a migration writes a blind index: as its declaration reads."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from django.db.migrations.serializer import BaseSerializer, serializer_factory
from django.db.migrations.writer import MigrationWriter

from keystead.fields import Exact, Normalised, Prefix, Tokens

_PACKAGE = "keystead.integrations.django"


class IndexSerializer(BaseSerializer):
    """``Exact(unique=True)``, with what is not the default."""

    def serialize(self) -> tuple[str, set[str]]:
        """Return the text, and what has to be imported for it."""
        given: list[str] = []
        for member in fields(self.value):
            value: Any = getattr(self.value, member.name)
            if member.default is MISSING or value != member.default:
                given.append(f"{member.name}={serializer_factory(value).serialize()[0]}")
        return f"{_PACKAGE}.{type(self.value).__name__}({', '.join(given)})", {f"import {_PACKAGE}"}


MigrationWriter.register_serializer((Exact, Normalised, Prefix, Tokens), IndexSerializer)
