"""A user registers: the e-mail address is encrypted with its type, the password is hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import strawberry

from keystead import KeyManager
from tests.samples.graphql import ask
from tests.samples.passwords import hash_password, is_password
from tests.samples.surroundings import Database

PASSWORD = "correct horse battery staple"
db = Database()


@dataclass
class UserRow:
    encrypted_email: dict[str, Any]
    password_hash: str


@strawberry.type
class User:
    email: str


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def register_user(self, info: strawberry.types.Info, email: str, password: str) -> User:
        key_manager = info.context["key_manager"]
        encrypted_email = await key_manager.encrypt_field(email, key_id="email-encryption-key")
        user = UserRow(encrypted_email=encrypted_email.to_dict(), password_hash=await hash_password(password))
        db.save(user)
        return User(email=await key_manager.decrypt_field(user.encrypted_email))


async def sample(key_manager: KeyManager) -> None:
    db.saved.clear()
    text = (
        "mutation ($email: String!, $password: String!) { registerUser(email: $email, password: $password) { email } }"
    )
    assert await ask(key_manager, Mutation, text, email="ada@example.org", password=PASSWORD) == {
        "registerUser": {"email": "ada@example.org"}
    }
    [user] = db.saved
    assert PASSWORD not in str(user)
    assert "ada@example.org" not in str(user)
    assert await is_password(PASSWORD, user.password_hash)
    assert not await is_password(PASSWORD.upper(), user.password_hash)
