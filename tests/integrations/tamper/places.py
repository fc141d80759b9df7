"""Where the keys of the tests live: every service and way to sign of the fapilog-tamper design, made and rotated alike.

A place can also be told as data, so that another process makes its providers over the same key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from keystead.integrations.tamper_faces import KeyFace
from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT, FakeAzure
from tests.integrations.tamper.process import build
from tests.services.aws import PROFILE, REGION, AwsService
from tests.services.azure import new_name
from tests.services.openbao import OpenBao

HMAC: Final = {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}
ECC: Final = {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}


@dataclass
class Place:
    """A key somewhere.

    Attributes:
        key_id: what callers say.
        is_exportable: whether ``get_key`` gives the key.
        rotate: lets another version sign from now on.
        fail, heal: an outage of the service, where it can have one.
        variables: of the environment, that its credentials come from.
    """

    kind: str
    arguments: list[Any]
    options: dict[str, Any]
    key_id: str
    rotate: Callable[[], None]
    is_exportable: bool = False
    fail: Callable[[], None] | None = None
    heal: Callable[[], None] = lambda: None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        """The place as data that JSON holds."""
        return {"kind": self.kind, "arguments": self.arguments, "options": self.options}

    def provider(self, **options: Any) -> KeyFace:
        """Return a provider over the key."""
        return build(self.spec, **options)


def aws_place(service: AwsService, way: str) -> Place:
    """A key of AWS KMS behind an alias, which a rotation moves to another key."""
    spec = {"data": {}, "mac": HMAC, "sign": ECC}[way]
    first = service.create(**spec)
    alias = service.point(f"tamper-{secrets.token_hex(6)}", first)
    proxy = service.proxy
    config = {"region": REGION} | ({"profile": PROFILE, "endpoint_url": proxy.url} if proxy else {})
    variables = {"AWS_SHARED_CREDENTIALS_FILE": str(service.credentials)} if service.credentials else {}

    def rotate() -> None:
        service.point(alias.removeprefix("alias/"), service.create(**spec))

    return Place(
        "AwsKmsProvider",
        [alias],
        {"config": config, "trusted_key_ids": [first]},
        alias,
        rotate,
        is_exportable=way == "data",
        fail=None if proxy is None else lambda: proxy.fail_every(1, status=503),
        heal=(lambda: None) if proxy is None else proxy.heal,
        variables=variables,
    )


def gcp_place(kms: Any, way: str) -> Place:
    """A key of Cloud KMS."""
    purpose = {"data": "ENCRYPT_DECRYPT", "mac": "MAC", "sign": "ASYMMETRIC_SIGN"}[way]
    algorithm = "EC_SIGN_ED25519" if way == "sign" else None
    name = kms.create_key(f"tamper-{secrets.token_hex(6)}", purpose, algorithm)

    def rotate() -> None:
        version = kms.keys.add_version(name)
        if way == "data":
            kms.keys.set_primary(name, int(version.name.rpartition("/")[2]))

    config = {"endpoint": kms.endpoint, "ca_file": kms.ca_file, "credentials_file": kms.credentials_file}
    return Place(
        "GcpKmsProvider",
        [name],
        {"config": config},
        name,
        rotate,
        is_exportable=way == "data",
        fail=lambda: kms.faults.fail_next(50),
        heal=kms.faults.heal,
    )


def azure_place(azure: FakeAzure, way: str) -> Place:
    """A key of a vault, or of a managed HSM."""
    vault = azure.hsm if way == "mac" else azure.vault
    kinds: dict[str, dict[str, Any]] = {
        "data": {"kty": "RSA"},
        "mac": {"kty": "oct-HSM", "key_ops": ("sign", "verify")},
        "sign": {"kty": "EC", "curve": "P-256"},
    }
    name = new_name("tamper")
    vault.state.create_key(name, **kinds[way])
    config = {
        "vault_url": vault.url,
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "allowed_hosts": list(azure.hosts),
        "authority": azure.authority,
        "ca_file": str(azure.ca_file),
        "managed_hsm": way == "mac",
    }

    def rotate() -> None:
        vault.state.create_key(name, **kinds[way])

    return Place(
        "AzureKeyVaultProvider",
        [vault.key_id(name)],
        {"config": config, "environ": {"AZURE_CLIENT_SECRET": SECRET}},
        vault.key_id(name),
        rotate,
        is_exportable=way == "data",
        fail=lambda: vault.fail_next(50),
        heal=azure.heal,
    )


def vault_place(bao: OpenBao, way: str) -> Place:
    """A key of a Transit engine."""
    kinds: dict[str, dict[str, Any]] = {
        "data": {},
        "mac": {"type": "hmac", "key_size": 32},
        "sign": {"type": "ed25519"},
    }
    name = bao.new_key(**kinds[way])
    token = bao.new_token(bao.user_policy)

    def rotate() -> None:
        bao.do("POST", f"{bao.mount}/keys/{name}/rotate")

    return Place(
        "VaultProvider",
        [bao.proxy.url, f"{bao.mount}/keys/{name}"],
        {"environ": {"VAULT_TOKEN": token}},
        f"{bao.mount}/keys/{name}",
        rotate,
        is_exportable=way == "data",
        fail=lambda: bao.proxy.fail_every(1, status=503),
        heal=bao.proxy.heal,
    )


def file_place(folder: Path) -> Place:
    """Keys in a file that is replaced."""
    keys = [secrets.token_bytes(32)]
    path = folder / "audit.key"

    def write() -> None:
        staged = folder / "audit.key.new"
        staged.write_text("\n".join(key.hex() for key in keys) + "\n")
        staged.chmod(0o600)
        staged.rename(path)

    def rotate() -> None:
        keys.insert(0, secrets.token_bytes(32))
        write()

    write()
    return Place("FileKeyProvider", [str(path)], {}, "audit", rotate, is_exportable=True)


def env_place() -> Place:
    """Keys in a variable, which is changed in the process itself."""
    environ = {"AUDIT_KEY": secrets.token_bytes(32).hex()}

    def rotate() -> None:
        environ["AUDIT_KEY"] = f"{secrets.token_bytes(32).hex()},{environ['AUDIT_KEY']}"

    return Place("EnvKeyProvider", ["AUDIT_KEY"], {"environ": environ}, "audit", rotate, is_exportable=True)
