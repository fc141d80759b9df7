"""What every answer of Azure, and every failure to answer, becomes."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    SigningError,
)
from keystead.model import EncryptedData, Signature, SignatureAlgorithm
from keystead.providers.azure.provider import AzureKMSProvider
from keystead.providers.guard import GuardedProvider
from tests.fakes.azure_http import Response
from tests.fakes.azure_keyvault import FakeAzure, FakeVault
from tests.providers.azure.conftest import Opening
from tests.services.azure import new_name

LEAKY = "an answer's text that must not travel on"


def error(status: int, code: str, inner: str | None = None, **headers: str) -> Response:
    body: dict[str, Any] = {"error": {"code": code, "message": LEAKY}}
    if inner is not None:
        body["error"]["innererror"] = {"code": inner}
    return Response(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


@dataclasses.dataclass
class Scene:
    """A provider of the managed HSM with everything that it needs, read once."""

    provider: AzureKMSProvider
    hsm: FakeVault
    kek: str
    mac: Signature
    sealed: EncryptedData

    def operations(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        return {
            "encrypt": lambda: self.provider.encrypt(b"value", self.kek),
            "decrypt": lambda: self.provider.decrypt(self.sealed),
            "mac": lambda: self.provider.mac(b"message", self.mac.key_reference.key_id),
            "verify_mac": lambda: self.provider.verify_mac(b"message", self.mac),
            "describe": lambda: self.provider.describe(self.kek),
            "rotate_key": lambda: self.provider.rotate_key(self.kek),
            "get_rotation_policy": lambda: self.provider.get_rotation_policy(self.kek),
        }


ALL = ["encrypt", "decrypt", "mac", "verify_mac", "describe", "rotate_key", "get_rotation_policy"]
each_operation = pytest.mark.parametrize("operation", ALL)


@pytest.fixture
async def scene(opening: Opening, cloud: FakeAzure) -> Scene:
    kek, mac = new_name("kek"), new_name("mac")
    cloud.hsm.state.create_key(kek, "oct-HSM")
    cloud.hsm.state.create_key(mac, "oct-HSM", key_ops=("sign", "verify"))
    provider = opening(vault_url=cloud.hsm.url, managed_hsm=True)
    made = await provider.mac(b"message", mac)
    await provider.verify_mac(b"message", made)
    sealed = await provider.encrypt(b"value", kek)
    await provider.decrypt(sealed)
    return Scene(provider, cloud.hsm, kek, made, sealed)


async def fails(scene: Scene, operation: str, response: Response) -> KMSError:
    scene.hsm.server.answer_next(1, response)
    with pytest.raises(KMSError) as caught:
        await scene.operations()[operation]()
    told = "".join(traceback.TracebackException(type(caught.value), caught.value, None, capture_locals=True).format())
    assert LEAKY not in f"{told}{caught.value!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, KMSError)
    return caught.value


ANSWERS: list[tuple[Response, type[KMSError]]] = [
    (error(408, "RequestTimeout"), ProviderConnectionError),
    (error(429, "Throttled", Retry_After="0"), ProviderConnectionError),
    (error(500, "InternalServerError"), ProviderConnectionError),
    (error(502, "BadGateway"), ProviderConnectionError),
    (error(503, "ServiceUnavailable"), ProviderConnectionError),
    (error(504, "GatewayTimeout"), ProviderConnectionError),
    (error(403, "Forbidden", "ForbiddenByRbac"), ProviderAuthError),
    (error(403, "Forbidden", "AccessDenied"), ProviderAuthError),
    (error(403, "Forbidden", "ForbiddenByPolicy"), ProviderAuthError),
    (error(403, "Forbidden", "ForbiddenByFirewall"), ProviderAuthError),
    (error(403, "Forbidden", "ForbiddenByConnection"), ProviderAuthError),
    (error(403, "Forbidden"), ProviderAuthError),
    (error(403, "Forbidden", "KeyDisabled"), KeyStateError),
    (error(403, "Forbidden", "KeyNotYetValid"), KeyStateError),
    (error(403, "Forbidden", "KeyExpired"), KeyStateError),
    (error(403, "Forbidden", "KeyOperationForbidden"), InvalidInputError),
    (error(404, "KeyNotFound"), KeyNotFoundError),
    (error(409, "Conflict", "ObjectIsBeingDeleted"), KeyStateError),
]


@each_operation
async def test_an_error_answer_is_the_same_error_of_ours_for_every_operation(scene: Scene, operation: str) -> None:
    for response, expected in ANSWERS:
        # After a denial keys are read again, and where that is denied too, used all the same.
        await scene.provider.decrypt(scene.sealed)
        await scene.provider.verify_mac(b"message", scene.mac)
        assert type(await fails(scene, operation, response)) is expected, response


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("encrypt", EncryptionError),
        ("decrypt", DecryptionError),
        ("mac", SigningError),
        ("verify_mac", SigningError),
        ("describe", KeyNotFoundError),
        ("rotate_key", KeyRotationError),
    ],
)
async def test_a_bad_request_is_the_operations_own_error(
    scene: Scene, operation: str, expected: type[KMSError]
) -> None:
    assert type(await fails(scene, operation, error(400, "BadParameter"))) is expected


@pytest.mark.parametrize(
    "message",
    [
        "Operation unwrapKey is not allowed on a disabled key.",
        "Operation encrypt is not allowed on an expired key.",
        "Operation sign is not allowed on a key that is not yet valid.",
    ],
)
async def test_a_disabled_key_is_told_from_a_denial_by_an_older_service_too(scene: Scene, message: str) -> None:
    response = Response(403, {"error": {"code": "Forbidden", "message": message}})
    assert type(await fails(scene, "decrypt", response)) is KeyStateError


@pytest.mark.parametrize("status", [418, 302, 599])
async def test_an_answer_that_no_key_vault_gives_is_an_error_too(scene: Scene, status: int) -> None:
    assert isinstance(
        await fails(scene, "decrypt", Response(status, b"?", {"Location": "https://evil.example.org"})), KMSError
    )


async def test_a_redirect_is_not_followed_and_takes_no_token_along(scene: Scene, cloud: FakeAzure) -> None:
    elsewhere = cloud.add_vault("hsm")
    response = Response(307, b"", {"Location": f"{elsewhere.url}/keys/{scene.kek}"})
    await fails(scene, "describe", response)
    assert elsewhere.server.requests == []


@each_operation
async def test_an_answer_that_makes_no_sense_is_an_error_of_ours(scene: Scene, operation: str) -> None:
    for body in (b"", b"{", b"[]", b"null", b'"text"', b'{"key": null}', b"{}", b"<html></html>"):
        raised = await fails(scene, operation, Response(200, body, {"Content-Type": "application/json"}))
        assert not isinstance(raised, ProviderAuthError | InvalidSignatureError), body


@each_operation
async def test_a_connection_that_breaks_is_an_outage(scene: Scene, operation: str) -> None:
    scene.hsm.server.drop_next(2)
    with pytest.raises(ProviderConnectionError) as caught:
        await scene.operations()[operation]()
    assert caught.value.retryable


@each_operation
async def test_a_service_that_cannot_be_reached_is_an_outage(opening: Opening, scene: Scene, operation: str) -> None:
    scene.provider = opening(vault_url="https://127.0.0.1:9", allowed_hosts=["127.0.0.1:9"], managed_hsm=True)
    there = "https://127.0.0.1:9/keys/kek"
    scene.kek = there
    scene.mac = dataclasses.replace(scene.mac, key_reference=dataclasses.replace(scene.mac.key_reference, key_id=there))
    scene.sealed = dataclasses.replace(
        scene.sealed, key_reference=dataclasses.replace(scene.sealed.key_reference, key_id=there)
    )
    with pytest.raises(ProviderConnectionError, match="could not be reached"):
        await scene.operations()[operation]()


async def test_a_certificate_that_is_not_trusted_says_so(opening: Opening, scene: Scene) -> None:
    with pytest.raises(ProviderConnectionError, match=r"certificate is not trusted.*ca_file"):
        await opening(ca_file=None).describe(scene.kek)


async def test_a_ca_file_that_is_missing_says_so(opening: Opening, scene: Scene) -> None:
    with pytest.raises(ConfigurationError, match="ca_file"):
        await opening(ca_file="/no/such/file.pem").describe(scene.kek)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "-4"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
async def test_what_the_service_asks_for_is_passed_on(
    scene: Scene, headers: dict[str, str], expected: float | None
) -> None:
    body = {"error": {"code": "Throttled", "message": LEAKY}}
    raised = await fails(scene, "decrypt", Response(429, body, headers))
    assert isinstance(raised, ProviderConnectionError)
    assert raised.retry_after_s == expected


async def test_a_date_to_come_back_at_counts_by_the_services_own_clock(scene: Scene) -> None:
    from email.utils import formatdate
    from time import time

    scene.hsm.server.clock_offset_s = 86_400
    until = formatdate(time() + 86_400 + 30, usegmt=True)
    raised = await fails(scene, "decrypt", error(429, "Throttled", Retry_After=until))
    assert isinstance(raised, ProviderConnectionError)
    assert raised.retry_after_s is not None
    assert 25 <= raised.retry_after_s <= 31


async def test_the_sdk_repeats_nothing_by_itself(scene: Scene) -> None:
    for operation in ALL:
        before = scene.hsm.calls()
        await fails(scene, operation, error(503, "ServiceUnavailable"))
        assert scene.hsm.calls() - before == 1


async def test_the_guard_repeats_what_may_help_and_nothing_else(scene: Scene) -> None:
    guarded = GuardedProvider(scene.provider, "azure")
    scene.hsm.fail_next(2)
    assert await guarded.decrypt(scene.sealed) == b"value"
    before = scene.hsm.calls()
    scene.hsm.deny("decrypt")
    with pytest.raises(ProviderAuthError):
        await guarded.decrypt(scene.sealed)
    assert scene.hsm.calls() - before == 1


async def test_a_firewall_says_what_to_do(scene: Scene) -> None:
    scene.hsm.state.is_firewalled = True
    with pytest.raises(ProviderAuthError, match="firewall"):
        await scene.provider.describe(scene.kek)


async def test_a_challenge_that_names_another_service_gets_no_token(
    opening: Opening, cloud: FakeAzure, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that ends like Azure's is held to be Azure's: its challenge must be for it."""
    from keystead.providers.azure import config as azure_config

    monkeypatch.setattr(azure_config.AzureKMSConfig, "is_listed", lambda self, host: False)
    cloud.login_server.requests.clear()
    provider = opening(vault_url=cloud.hsm.url, managed_hsm=True)
    with pytest.raises(ProviderAuthError, match="does not belong to"):
        await provider.describe(scene.kek)
    assert cloud.login_server.requests == []


def key_answer(scene: Scene, **members: object) -> Response:
    """Return an answer to ``describe`` that is like a right one but for some members of the JWK."""
    kid = f"{scene.hsm.url}/keys/{scene.kek}/{scene.sealed.key_reference.key_version}"
    jwk = {"kid": kid, "kty": "oct-HSM", "key_ops": ["encrypt", "decrypt"], **members}
    return Response(200, {"key": jwk, "attributes": {"enabled": True}})


@pytest.mark.parametrize(
    "members",
    [
        {"kid": "https://acme.managedhsm.azure.net/keys/another/0123456789abcdef0123456789abcdef"},
        {"kid": "https://acme.managedhsm.azure.net/keys/another"},
        {"kid": "not a url"},
        {"kty": "OKP"},
        {"kty": None},
        {"kty": "RSA", "n": "AQAB"},
        {"kty": "RSA", "n": "Ag", "e": "Ag"},
        {"kty": "EC", "crv": "P-999", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
    ],
)
async def test_a_key_that_cannot_be_is_not_taken_for_one(scene: Scene, members: dict[str, object]) -> None:
    raised = await fails(scene, "describe", key_answer(scene, **members))
    assert type(raised) is ProviderConnectionError


async def test_a_key_is_asked_for_where_it_was_asked_for_whatever_the_answer_says(scene: Scene) -> None:
    """A token goes to no host that an answer names."""
    version = scene.sealed.key_reference.key_version
    elsewhere = f"https://evil.example.org/keys/{scene.kek}/{version}"
    scene.hsm.server.answer_next(1, key_answer(scene, kid=elsewhere))
    assert (await scene.provider.describe(scene.kek)).key_reference.key_id == scene.hsm.key_id(scene.kek)


@pytest.mark.parametrize("missing", ["iv", "tag", "value"])
async def test_a_ciphertext_that_could_not_be_opened_again_is_not_kept(scene: Scene, missing: str) -> None:
    answer = {"kid": "x", "value": "AAAAAAAA", "iv": "AAAAAAAAAAAAAAAA", "tag": "AAAAAAAAAAAAAAAAAAAAAA"}
    del answer[missing]
    assert type(await fails(scene, "encrypt", Response(200, answer))) is ProviderConnectionError


async def test_what_is_wrong_with_a_call_is_said_before_anything_is_sent(scene: Scene) -> None:
    wrong = dataclasses.replace(scene.mac, algorithm=SignatureAlgorithm.ED25519)
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: scene.provider.verify_mac(b"message", wrong),
        lambda: scene.provider.verify_mac("message", scene.mac),  # type: ignore[arg-type]  # what is refused
        lambda: scene.provider.mac("message", scene.mac.key_reference.key_id),  # type: ignore[arg-type]
        lambda: scene.provider.sign(b"message", scene.kek, algorithm=SignatureAlgorithm.HMAC_SHA_256),
        lambda: scene.provider.public_key(scene.kek),
        lambda: scene.provider.sign(b"message", scene.kek),
        lambda: scene.provider.encrypt(b"value", scene.kek, context={"n": 1}),  # type: ignore[dict-item]
    ]
    before = scene.hsm.calls()
    for call in calls:
        with pytest.raises(InvalidInputError):
            await call()
    assert scene.hsm.calls() == before
