"""The GraphQL schema: documented operations under their names, and those that go beyond them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeAlias

import strawberry
from strawberry.schema.config import StrawberryConfig

from keystead.access.approvals import asked_by, asker_of
from keystead.access.callers import Caller, Scope
from keystead.devices.decrypting import JUNK, Encrypted
from keystead.devices.encrypting import encrypt_data
from keystead.devices.owners import LISTED
from keystead.devices.pairs import ALGORITHMS, FAILED
from keystead.devices.secrets import Authority
from keystead.errors import DecryptionError, InvalidInputError
from keystead.ports import ClientKeyRecord, SecretKind
from keystead.server.graphql import types
from keystead.server.graphql.context import Request

Info: TypeAlias = strawberry.Info[Request, None]


@strawberry.type
class Query:
    """What is read."""

    @strawberry.field(description="The key pairs of a device, the newest first.")
    async def list_client_encryption_keys(
        self,
        info: Info,
        device_id: str,
        limit: Annotated[int, strawberry.argument(description=f"How many at most, 1 to {LISTED}.")] = LISTED,
        after: Annotated[
            str | None, strawberry.argument(description="Only those behind this one: the last `keyId` that is known.")
        ] = None,
    ) -> list[types.ClientKeyInfo]:
        """Return the key pairs of a device."""
        request = info.context
        caller = request.caller(Scope.DEVICES_USE, Scope.DEVICES_ADMIN)
        is_admin = Scope.DEVICES_ADMIN in caller.scopes
        if not 0 < limit <= LISTED:
            raise InvalidInputError(f"limit is 1 to {LISTED}")
        keys = await request.devices.owners.client_keys(
            caller.principal, device_id, is_admin=is_admin, after=after, limit=limit
        )
        return [types.ClientKeyInfo.of(key) for key in keys]

    @strawberry.field(description="What was done with keys in the last hours, as JSON.")
    async def get_encryption_metrics_summary(self, info: Info, timeframe_hours: float = 24) -> str:
        """Return the summary."""
        request = info.context
        request.caller(Scope.METRICS_READ).require_all_tenants()
        return await request.devices.summaries.summary_text(timeframe_hours)


@strawberry.type
class Mutation:
    """What is done."""

    @strawberry.mutation(description="The public key that a device is to encrypt to: the one it has, or a new one.")
    async def generate_client_encryption_key(
        self, info: Info, input: types.ClientIdentityInput
    ) -> types.EncryptionKeyOutput:
        """Return a device's public key."""
        request = info.context
        caller = request.caller(Scope.DEVICES_USE)
        key = await request.devices.keys.generate(
            caller.principal, input.device_id, app_version=input.app_version, kind=input.kind
        )
        return _output(request, key)

    @strawberry.mutation(description="A new public key for a device; the ones before decrypt until they expire.")
    async def rotate_client_encryption_key(
        self, info: Info, input: types.ClientIdentityInput
    ) -> types.EncryptionKeyOutput:
        """Replace a device's key pair."""
        request = info.context
        caller = request.caller(Scope.DEVICES_USE)
        key = await request.devices.keys.rotate(
            caller.principal, input.device_id, app_version=input.app_version, kind=input.kind
        )
        return _output(request, key)

    @strawberry.mutation(description="Set the passcode of the user who calls, or change it.")
    async def set_user_passcode(self, info: Info, input: types.EncryptedPasscodeInput) -> bool:
        """Set a passcode."""
        _require_type(input.password_auth_type, SecretKind.PASSCODE)
        given = _encrypted(input, input.encrypted_passcode)
        current = _current(input, input.current_encrypted_passcode)
        return await _set(info.context, SecretKind.PASSCODE, given, current)

    @strawberry.mutation(description="Whether it is the passcode of the user who calls.")
    async def verify_user_passcode(self, info: Info, input: types.EncryptedVerifyPasscodeInput) -> bool:
        """Verify a passcode."""
        _require_type(input.password_auth_type, SecretKind.PASSCODE)
        return await _verify(info.context, SecretKind.PASSCODE, _encrypted(input, input.encrypted_passcode))

    @strawberry.mutation(description="Set the transaction PIN of the user who calls, or change it.")
    async def set_transaction_pin(self, info: Info, input: types.EncryptedTransactionPinInput) -> bool:
        """Set a PIN."""
        _require_type(input.password_auth_type, SecretKind.TRANSACTION_PIN)
        given = _encrypted(input, _one_of(input.encrypted_pin, input.encrypted_passcode))
        current = _current(input, input.current_encrypted_pin)
        return await _set(info.context, SecretKind.TRANSACTION_PIN, given, current)

    @strawberry.mutation(description="Whether it is the transaction PIN of the user who calls.")
    async def verify_transaction_pin(self, info: Info, input: types.EncryptedVerifyTransactionPinInput) -> bool:
        """Verify a PIN."""
        _require_type(input.password_auth_type, SecretKind.TRANSACTION_PIN)
        given = _encrypted(input, _one_of(input.encrypted_pin, input.encrypted_passcode))
        return await _verify(info.context, SecretKind.TRANSACTION_PIN, given)

    @strawberry.mutation(description="Whether it is the secret of the user who calls, and why not.")
    async def verify_secret(self, info: Info, input: types.VerifySecretInput) -> types.SecretVerdict:
        """Verify a secret, with a reason."""
        request = info.context
        caller = request.caller(Scope.DEVICES_USE)
        given = _encrypted(input, input.encrypted_secret)
        verdict = await request.devices.secrets.verify(caller.principal, input.password_auth_type.kind, given)
        return types.SecretVerdict.of(verdict)

    @strawberry.mutation(description="What was encrypted to a key of the user who calls.")
    async def decrypt_data(self, info: Info, input: types.DecryptDataInput) -> str:
        """Decrypt data."""
        request = info.context
        caller = request.caller(Scope.DEVICES_DECRYPT)
        with _told_alike():
            return await request.devices.decrypting.decrypt_data(
                caller.principal, _encrypted(input, input.encrypted_data)
            )

    @strawberry.mutation(description="Erase the private keys of a device, which gets no others.")
    async def revoke_device(self, info: Info, device_id: str) -> bool:
        """Revoke a device."""
        request = info.context
        caller = request.caller(Scope.DEVICES_USE, Scope.DEVICES_ADMIN)
        await request.devices.owners.revoke(caller.principal, device_id, is_admin=Scope.DEVICES_ADMIN in caller.scopes)
        return True

    @strawberry.mutation(description="Let a device belong to the next user who uses it.")
    async def release_device(self, info: Info, device_id: str) -> bool:
        """Release a device."""
        request = info.context
        await request.devices.owners.release(request.caller(Scope.DEVICES_ADMIN).principal, device_id)
        return True

    @strawberry.mutation(description="Remove a user: devices, keys and secrets.")
    async def forget_user(self, info: Info, user_id: str) -> bool:
        """Forget a user."""
        request = info.context
        caller = request.caller(Scope.DEVICES_ADMIN)
        with asked_by(asker_of(caller, is_admitted=True)):
            await request.devices.owners.forget(caller.principal, user_id)
        return True


@strawberry.type(name="Mutation")
class DevelopmentMutation(Mutation):
    """What is done, under ``--dev``."""

    @strawberry.mutation(description="Encrypt as a client does; in development only.")
    async def encrypt_data(self, info: Info, input: types.EncryptDataInput) -> str:
        """Encrypt data."""
        request = info.context
        caller = request.caller(Scope.DEVICES_USE)
        key = await request.devices.keys.find(caller.principal, input.key_id)
        return base64.b64encode(encrypt_data(key, input.data.encode(), input.algorithm)).decode("ascii")


def new_schema(*, is_development: bool) -> strawberry.Schema:
    """Return the schema; ``encryptData`` is part of it in development only."""
    return strawberry.Schema(
        query=Query,
        mutation=DevelopmentMutation if is_development else Mutation,
        config=StrawberryConfig(auto_camel_case=True, disable_field_suggestions=True),
    )


def _output(request: Request, key: ClientKeyRecord) -> types.EncryptionKeyOutput:
    return types.EncryptionKeyOutput.of(key, request.service.identity.sign(key, ALGORITHMS[key.kind][0]))


async def _set(request: Request, kind: SecretKind, given: Encrypted, current: Encrypted | None) -> bool:
    caller = request.caller(Scope.DEVICES_USE)
    with _told_alike():
        await request.devices.secrets.set(
            caller.principal, kind, given, current=current, authority=_authority(request, caller)
        )
    return True


async def _verify(request: Request, kind: SecretKind, given: Encrypted) -> bool:
    verdict = await request.devices.secrets.verify(request.caller(Scope.DEVICES_USE).principal, kind, given)
    if not verdict.is_right:
        request.tell(verdict.reason.value, verdict.retry_after_s)
    return verdict.is_right


@contextmanager
def _told_alike() -> Iterator[None]:
    """Have everything that is wrong with a ciphertext be one and the same error."""
    try:
        yield
    except JUNK:
        raise DecryptionError(FAILED) from None


def _authority(request: Request, caller: Caller) -> Authority:
    if request.service.is_development:
        return Authority.DEVELOPMENT
    return Authority.RESET if Scope.SECRETS_RESET in caller.scopes else Authority.NONE


def _encrypted(given: Any, text: str) -> Encrypted:
    return Encrypted(text, given.key_id, given.algorithm, given.payload_version)


def _current(given: Any, text: str | None) -> Encrypted | None:
    return None if text is None else _encrypted(given, text)


def _one_of(pin: str | None, passcode: str | None) -> str:
    if (pin is None) == (passcode is None):
        raise InvalidInputError("give the PIN as encryptedPin or as encryptedPasscode, and not as both")
    return pin if pin is not None else passcode or ""


def _require_type(given: types.PasswordAuthType | None, kind: SecretKind) -> None:
    if given is not None and given.kind is not kind:
        raise InvalidInputError(f"passwordAuthType is not that of this operation, which is {kind.name}")
