"""The key manager in the GraphQL context: what is read again is encrypted, the password is hashed."""

from __future__ import annotations

import strawberry

from keystead import KeyManager
from keystead.model import EncryptedData
from tests.samples.graphql import ask
from tests.samples.passwords import hash_password, is_password
from tests.samples.surroundings import Database

PASSWORD = "correct horse battery staple"
db = Database()


@strawberry.type
class User:
    id: int


def create_user_record(encrypted_email: EncryptedData, password_hash: str) -> User:
    db.save({"email": str(encrypted_email), "password_hash": password_hash})
    return User(id=len(db.saved))


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def create_user(self, info: strawberry.types.Info, email: str, password: str) -> User:
        encrypted_email = await info.context["key_manager"].encrypt_field(email, key_id="app-encryption-key")
        return create_user_record(encrypted_email, await hash_password(password))


async def sample(key_manager: KeyManager) -> None:
    db.saved.clear()
    text = "mutation ($email: String!, $password: String!) { createUser(email: $email, password: $password) { id } }"
    assert await ask(key_manager, Mutation, text, email="ada@example.org", password=PASSWORD) == {
        "createUser": {"id": 1}
    }
    [row] = db.saved
    assert PASSWORD not in str(row)
    assert "ada@example.org" not in str(row)
    assert await is_password(PASSWORD, row["password_hash"])
