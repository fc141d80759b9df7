"""An API key is shown once, and stored encrypted for its user; its name holds nothing of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import strawberry

from keystead import KeyManager
from tests.samples.graphql import ask
from tests.samples.surroundings import Database

db = Database()


@dataclass
class ApiKey:
    user_id: UUID
    encrypted_key: dict[str, Any]
    name: str


@strawberry.type
class ApiKeyResponse:
    api_key: str
    name: str


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def generate_api_key(self, info: strawberry.types.Info, user_id: UUID) -> ApiKeyResponse:
        key_manager = info.context["key_manager"]

        api_key = secrets.token_urlsafe(32)
        encrypted_key = await key_manager.encrypt_field(
            api_key, key_id="api-key-encryption-key", context={"user_id": str(user_id)}
        )
        # A number of its own: 8 characters of the key would be 48 of its 256 bits, in clear wherever names are shown.
        db_key = ApiKey(user_id=user_id, encrypted_key=encrypted_key.to_dict(), name=f"API Key {secrets.token_hex(4)}")
        db.save(db_key)

        opened = await key_manager.decrypt_field(db_key.encrypted_key, context={"user_id": str(user_id)})
        assert opened == api_key
        return ApiKeyResponse(api_key=api_key, name=db_key.name)


async def sample(key_manager: KeyManager) -> None:
    db.saved.clear()
    text = "mutation ($id: UUID!) { generateApiKey(userId: $id) { apiKey name } }"
    answer = (await ask(key_manager, Mutation, text, id=str(uuid4())))["generateApiKey"]
    [row] = db.saved
    assert answer["apiKey"] not in str(row)
    assert answer["apiKey"][:8] not in row.name
    assert answer["name"] == row.name
