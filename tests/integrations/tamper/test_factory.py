"""``create_key_provider`` and what it says of an SDK that is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, HardcodedCredentialWarning, KeyNotFoundError, MissingDependencyError
from keystead.integrations import tamper
from keystead.integrations.tamper import TamperConfig, create_key_provider
from keystead.model import KeyPurpose
from keystead.ports import AuditEvent
from keystead.testing import FakeKMS
from tests.docs.blocks import ROOT
from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT
from tests.fakes.clock import FakeClock

MESSAGE = b"what happened"
GCP_KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/audit"
AZURE_KEY = "https://acme.vault.azure.net/keys/audit"
SOURCES: dict[str, dict[str, Any]] = {
    "env": {"key_env_var": "AUDIT_KEY"},
    "file": {"key_file_path": "/run/secrets/audit"},
    "aws-kms": {"key_id": "alias/audit", "aws_region": "eu-west-1"},
    "gcp-kms": {"key_id": GCP_KEY},
    "azure-keyvault": {"key_id": AZURE_KEY, "azure_tenant_id": TENANT, "azure_client_id": CLIENT},
    "vault": {"key_id": "transit/keys/audit", "vault_addr": "https://vault.example.org:8200"},
}
CLASSES = {
    "env": "EnvKeyProvider",
    "file": "FileKeyProvider",
    "aws-kms": "AwsKmsProvider",
    "gcp-kms": "GcpKmsProvider",
    "azure-keyvault": "AzureKeyVaultProvider",
    "vault": "VaultProvider",
}
MISSING = [
    ("aws-kms", "boto3", "AWS KMS support requires boto3. Install with: pip install keystead[aws]"),
    (
        "gcp-kms",
        "google.cloud.kms_v1",
        "Google Cloud KMS support requires google-cloud-kms. Install with: pip install keystead[gcp]",
    ),
    (
        "azure-keyvault",
        "azure.keyvault.keys",
        "Azure Key Vault support requires azure-keyvault-keys. Install with: pip install keystead[azure]",
    ),
    (
        "azure-keyvault",
        "azure.identity",
        "Azure Key Vault support requires azure-identity. Install with: pip install keystead[azure]",
    ),
    ("vault", "hvac", "Vault support requires hvac. Install with: pip install keystead[vault]"),
]


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Let a module be found by nobody."""
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == module or name.startswith(f"{module}.") else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.parametrize("source", SOURCES)
def test_provider_factory(source: str) -> None:
    provider = create_key_provider(TamperConfig(key_source=source, **SOURCES[source]))  # type: ignore[arg-type]
    assert type(provider) is getattr(tamper, CLASSES[source])


@pytest.mark.parametrize(("source", "module", "message"), MISSING, ids=[module for _, module, _ in MISSING])
def test_missing_dependency_error(source: Any, module: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, module)
    with pytest.raises(ImportError) as caught:
        create_key_provider(TamperConfig(key_source=source, **SOURCES[source]))
    assert str(caught.value) == message
    assert isinstance(caught.value, MissingDependencyError)


def test_f10_the_hsm_names_its_package_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from keystead.providers.registry import open_provider
    from keystead.providers.uri import ProviderSettings

    without(monkeypatch, "pkcs11")
    with pytest.raises(ImportError, match=r"requires python-pkcs11\. Install with: pip install keystead\[pkcs11\]"):
        open_provider("pkcs11:token=x;object=y?module-path=/m.so", ProviderSettings())


def test_f10_an_sdk_that_is_broken_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keystead.providers.sdk import Sdk

    (tmp_path / "broken_sdk.py").write_text("import what_it_lacks\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        Sdk("AWS KMS", "boto3", "broken_sdk", "aws").load()
    assert caught.value.name == "what_it_lacks"


def test_f11_neither_constructors_nor_the_factory_do_io_or_load_an_sdk() -> None:
    script = (
        "import socket, sys, builtins\n"
        "from keystead.integrations.tamper import TamperConfig, create_key_provider\n"
        "def refuse(*given, **named): raise SystemExit('a connection')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        f"for source, options in {SOURCES!r}.items():\n"
        "    create_key_provider(TamperConfig(key_source=source, **options))\n"
        "loaded = {'boto3', 'botocore', 'hvac', 'google.cloud.kms_v1', 'azure.keyvault.keys', 'grpc'}\n"
        "sys.exit(' '.join(sorted(loaded & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("file", "key_file_path"),
        ("aws-kms", "needs key_id$"),
        ("gcp-kms", "needs key_id$"),
        ("azure-keyvault", "needs key_id$"),
        ("vault", "key_id or vault_path"),
    ],
)
def test_what_a_source_needs_is_named(source: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        create_key_provider(TamperConfig(key_source=source))


@pytest.mark.parametrize("source", ["env", "file"])
def test_kms_signing_without_a_kms_is_refused(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="use_kms_signing"):
        create_key_provider(TamperConfig(key_source=source, use_kms_signing=True, **SOURCES[source]))


async def test_a_configured_time_and_grace_take_effect(kms: FakeKMS, clock: FakeClock) -> None:
    kms.create_key("alias/audit")
    config = TamperConfig(key_source="aws-kms", key_id="alias/audit", key_cache_ttl_seconds=60, key_grace_seconds=0)
    provider = create_key_provider(config, kms=kms, clock=clock)
    await provider.sign("alias/audit", MESSAGE)
    clock.advance(60)
    await provider.sign("alias/audit", MESSAGE)
    assert (kms.calls["generate_data_key"], kms.calls["decrypt"]) == (1, 1)
    kms.fail_always()
    clock.advance(60)
    with pytest.raises(Exception, match="unreachable"):
        await provider.sign("alias/audit", MESSAGE)


async def test_trusted_keys_stream_and_audit_take_effect(kms: FakeKMS, clock: FakeClock) -> None:
    events: list[AuditEvent] = []
    for key_id in ("alias/audit", "former"):
        kms.create_key(key_id)
    config = TamperConfig(key_source="aws-kms", key_id="alias/audit", trusted_key_ids=("former",))
    provider = create_key_provider(config, kms=kms, clock=clock, stream="app", audit=events.append)
    former = create_key_provider(
        TamperConfig(key_source="aws-kms", key_id="former"), kms=kms, clock=clock, stream="app"
    )
    assert await provider.verify("alias/audit", MESSAGE, await former.sign("former", MESSAGE))
    other = create_key_provider(TamperConfig(key_source="aws-kms", key_id="former"), kms=kms, clock=clock)
    assert not await provider.verify("alias/audit", MESSAGE, await other.sign("former", MESSAGE))
    assert [event.action for event in events] == ["key.unwrap", "key.unwrap"]


async def test_kms_signing_takes_effect(kms: FakeKMS, clock: FakeClock) -> None:
    kms.create_key("alias/mac", purpose=KeyPurpose.MAC)
    config = TamperConfig(key_source="aws-kms", key_id="alias/mac", use_kms_signing=True)
    assert len(await create_key_provider(config, kms=kms, clock=clock).sign("alias/mac", MESSAGE)) == 32


async def test_ed25519_is_insisted_on_where_it_is_configured(kms: FakeKMS, clock: FakeClock) -> None:
    kms.create_key("mac", purpose=KeyPurpose.MAC)
    kms.create_key("signer", purpose=KeyPurpose.SIGN_VERIFY)
    for key_id in ("mac", "signer"):
        config = TamperConfig(key_source="aws-kms", key_id=key_id, algorithm="Ed25519")
        provider = create_key_provider(config, kms=kms, clock=clock)
        if key_id == "signer":
            assert len(await provider.sign(key_id, MESSAGE)) == 64
        else:
            with pytest.raises(ConfigurationError, match="does not sign by Ed25519"):
                await provider.sign(key_id, MESSAGE)


async def test_a_file_is_read_as_configured(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o440)
    config = TamperConfig(
        key_source="file",
        key_id="audit",
        key_file_path=str(path),
        key_file_allow_group_read=True,
        algorithm="Ed25519",
    )
    provider = create_key_provider(config)
    assert len(await provider.sign("audit", MESSAGE)) == 64
    with pytest.raises(KeyNotFoundError):
        await provider.sign("another", MESSAGE)


def test_f16_everything_of_vault_reaches_its_configuration(tmp_path: Path) -> None:
    config = TamperConfig(
        key_source="vault",
        vault_path="teams/transit/keys/audit",
        vault_addr="https://vault.example.org",
        vault_auth_method="approle",
        vault_role="a-role-id",
        vault_secret_id_file=str(tmp_path / "secret-id"),
        vault_secret_id_is_wrapped=True,
        vault_namespace="team",
        vault_auth_mount="approle-2",
        vault_ca_cert=str(tmp_path / "ca.pem"),
    )
    provider: Any = create_key_provider(config)
    given = provider._signer._provider.provider._config
    assert (given.vault_addr, given.mount_path, given.namespace) == (
        "https://vault.example.org",
        "teams/transit",
        "team",
    )
    assert (given.auth_method, given.role_id, given.auth_mount) == ("approle", "a-role-id", "approle-2")
    assert given.secret_id_is_wrapped
    assert str(given.tls_ca_cert).endswith("ca.pem")


@pytest.mark.parametrize(
    ("source", "secret"),
    [
        ("vault", {"vault_token": "hvs.canary"}),
        ("vault", {"vault_auth_method": "approle", "vault_role": "r", "vault_secret_id": "hvs.canary"}),
        ("azure-keyvault", {"azure_client_secret": SECRET}),
    ],
)
def test_f22_a_credential_in_the_configuration_is_warned_of_once(source: Any, secret: dict[str, Any]) -> None:
    with pytest.warns(HardcodedCredentialWarning) as caught:
        create_key_provider(TamperConfig(key_source=source, **SOURCES[source], **secret))
    assert len(caught) == 1


@pytest.mark.parametrize("source", SOURCES)
def test_without_one_nothing_is_warned_of(source: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_key_provider(TamperConfig(key_source=source, **SOURCES[source]))


@pytest.mark.parametrize(
    ("extra", "package", "at_least"),
    [
        ("aws", "boto3", (1, 26)),  # generate_mac
        ("gcp", "google-cloud-kms", (2, 5)),  # mac_sign
        ("azure", "azure-keyvault-keys", (4, 11)),  # hs256
        ("azure", "azure-identity", (1, 0)),
        ("vault", "hvac", (1, 0)),
    ],
)
def test_f26_the_floor_of_each_sdk_has_what_is_called(extra: str, package: str, at_least: tuple[int, int]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    floors = dict(requirement.split(">=") for requirement in extras[extra])
    assert tuple(map(int, floors[package].split(".")[:2])) >= at_least
    assert extras["all-kms"] == ["keystead[aws,azure,gcp,pkcs11,vault]"]


def test_every_name_of_the_module_is_there() -> None:
    assert [name for name in tamper.__all__ if not hasattr(tamper, name)] == []
    with pytest.raises(AttributeError):
        getattr(tamper, "Misspelt")  # noqa: B009


def test_the_configuration_names_the_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, "keystead.integrations.tamper_config", raising=False)
    monkeypatch.delitem(vars(tamper), "TamperConfig", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install keystead\[config\]"):
        getattr(tamper, "TamperConfig")  # noqa: B009


@pytest.mark.parametrize("source", ["aws-kms", "gcp-kms", "azure-keyvault", "vault"])
async def test_every_provider_takes_one_that_is_made_already(source: Any, kms: FakeKMS, clock: FakeClock) -> None:
    key_id = "audit" if source == "vault" else SOURCES[source]["key_id"]
    kms.create_key(key_id)
    config = TamperConfig(key_source=source, **SOURCES[source])
    async with create_key_provider(config, kms=kms, clock=clock) as provider:
        signature = await provider.sign(config.key_id, MESSAGE)
        assert await provider.verify(config.key_id, MESSAGE, signature)
