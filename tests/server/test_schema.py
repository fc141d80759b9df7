from __future__ import annotations

from keystead.server.graphql.door import GraphQLDoor
from scripts.gen_schema import TARGET


def test_the_schema_is_the_one_that_is_committed() -> None:
    assert TARGET.read_text(encoding="utf-8") == GraphQLDoor(is_development=False).sdl + "\n"


def test_what_is_for_development_alone_is_nowhere_else() -> None:
    assert "encryptData" not in GraphQLDoor(is_development=False).sdl
    assert "encryptData(input: EncryptDataInput!): String!" in GraphQLDoor(is_development=True).sdl


def test_documented_operations_have_their_documented_types() -> None:
    sdl = GraphQLDoor(is_development=False).sdl
    for line in (
        "generateClientEncryptionKey(input: ClientIdentityInput!): EncryptionKeyOutput!",
        "rotateClientEncryptionKey(input: ClientIdentityInput!): EncryptionKeyOutput!",
        "setUserPasscode(input: EncryptedPasscodeInput!): Boolean!",
        "verifyUserPasscode(input: EncryptedVerifyPasscodeInput!): Boolean!",
        "setTransactionPin(input: EncryptedTransactionPinInput!): Boolean!",
        "verifyTransactionPin(input: EncryptedVerifyTransactionPinInput!): Boolean!",
        "decryptData(input: DecryptDataInput!): String!",
        "enum PASSWORD_AUTH_TYPE {\n  PASSCODE\n  TRANSACTION_PIN\n}",
    ):
        assert line in sdl
