"""No credential and no key is logged, printed or shown by an error."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import HardcodedCredentialWarning, KMSError
from keystead.integrations.tamper import AzureKeyVaultProvider, EnvKeyProvider, FileKeyProvider, VaultProvider
from keystead.integrations.tamper_faces import KeyFace
from tests.canary.watch import SecretWatch, listening
from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT
from tests.integrations.tamper.places import Place
from tests.services.openbao import OpenBao

MESSAGE = b"what happened"
CANARY = "a canary that must never be seen"

pytestmark = pytest.mark.filterwarnings("ignore::keystead.errors.HardcodedCredentialWarning")


def frames_of(error: BaseException) -> str:
    """Return an error as an error tracker shows it: with the values of every frame's names, but the test's own."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.TracebackException(type(error), error, own, capture_locals=True).format())


async def test_no_credential_logging(
    place: Place, provider_of: Callable[..., KeyFace], caplog: pytest.LogCaptureFixture
) -> None:
    watch = SecretWatch()
    provider = provider_of(place)
    with caplog.at_level(logging.DEBUG), listening(watch, ("", logging.DEBUG)):
        if place.is_exportable:
            watch.learn(await provider.get_key(place.key_id))
            watch.learn(await provider.derive_key(place.key_id, "sign"))
        signature = await provider.sign(place.key_id, MESSAGE)
        assert await provider.verify(place.key_id, MESSAGE, signature)
        place.rotate()
        await provider.rotate_check()
        if place.is_exportable:
            watch.learn(await provider.get_key(place.key_id))
        await provider.aclose()
    assert watch.records
    assert watch.hits() == []
    said = caplog.text + repr([vars(record) for record in caplog.records])
    for secret in (SECRET, *place.options.get("environ", {}).values()):
        assert secret not in said


async def test_a_login_that_fails_shows_no_credential(own_openbao: OpenBao, caplog: pytest.LogCaptureFixture) -> None:
    role = own_openbao.app_role()
    secrets = {"token": CANARY, "secret_id": CANARY}
    providers = [
        VaultProvider(own_openbao.url, "audit", token=secrets["token"], environ={}),
        VaultProvider(
            own_openbao.url,
            "audit",
            "approle",
            role_id=role.role_id,
            secret_id=secrets["secret_id"],
            vault={"auth_mount": role.mount},
            environ={},
        ),
    ]
    with caplog.at_level(logging.DEBUG):
        for provider in providers:
            async with provider:
                with pytest.raises(KMSError) as caught:
                    await provider.sign("audit", MESSAGE)
            assert CANARY not in f"{frames_of(caught.value)}{provider!r}"
    assert CANARY not in caplog.text


async def test_no_error_about_a_key_that_cannot_be_read_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    for content in (CANARY.encode() + b"!", f"{CANARY},{CANARY}".encode()):
        path.write_bytes(content)
        for provider in (FileKeyProvider(path), EnvKeyProvider("A_KEY", environ=Hidden(content.decode()))):
            with pytest.raises(KMSError) as caught:
                await provider.sign("audit", MESSAGE)
            assert "canary" not in frames_of(caught.value)


class Hidden(dict[str, str]):
    """An environment that does not show its values, as the process's own would in the traceback of a test."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self._value = value

    def get(self, name: str, default: Any = None) -> Any:
        return self._value

    def __repr__(self) -> str:
        return "Hidden()"


@pytest.mark.parametrize(
    "make",
    [
        lambda: AzureKeyVaultProvider("https://acme.vault.azure.net/keys/audit", TENANT, CLIENT, client_secret=CANARY),
        lambda: VaultProvider("https://vault.example.org", "audit", token=CANARY),
    ],
)
def test_a_warning_names_the_setting_and_not_its_value(make: Callable[[], KeyFace]) -> None:
    with pytest.warns(HardcodedCredentialWarning) as caught:
        make()
    assert CANARY not in str(caught[0].message)
