"""What the documentation's page says of permissions, limits and Python is so."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ProviderAuthError
from keystead.model import EncryptedData, Signature
from keystead.providers.azure import config as azure_config
from keystead.providers.azure.provider import AzureKMSConfig, AzureKMSProvider
from keystead.providers.azure.wrap import AES_CAPACITY, RSA_CAPACITIES
from tests.docs.blocks import ROOT, Block, read_blocks
from tests.docs.page_runner import PageRunner
from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT, FakeAzure
from tests.providers.azure.conftest import Opening
from tests.services.azure import new_name

PAGE = ROOT / "docs" / "kms" / "azure.md"
TEXT = PAGE.read_text(encoding="utf-8")
EVERY = {"get", "list", "encrypt", "decrypt", "wrapKey", "unwrapKey", "sign", "verify", "rotate", "getRotationPolicy"}

Use = Callable[[AzureKMSProvider], Awaitable[Any]]


@dataclass
class Keys:
    """Keys of every kind, and what was made with them while everything was allowed."""

    rsa: str
    signer: str
    aes: str
    mac_key: str
    sealed: dict[str, EncryptedData]
    mac: Signature

    @classmethod
    async def make(cls, cloud: FakeAzure, opening: Opening) -> Keys:
        rsa, signer, aes, mac_key = (new_name(kind) for kind in ("rsa", "signer", "aes", "mac"))
        cloud.vault.state.create_key(rsa)
        cloud.vault.state.create_key(signer, "EC")
        cloud.hsm.state.create_key(aes, "oct-HSM")
        cloud.hsm.state.create_key(mac_key, "oct-HSM", key_ops=("sign", "verify"))
        hsm = opening(vault_url=cloud.hsm.url, managed_hsm=True)
        sealed = {
            "RSA, signed": await opening(sign_key=signer).encrypt(b"value", rsa),
            "RSA, unsigned": await opening(allow_unauthenticated_wrap=True).encrypt(b"value", rsa),
            "AES": await hsm.encrypt(b"value", aes),
        }
        return cls(rsa, signer, aes, mac_key, sealed, await hsm.mac(b"value", mac_key))

    def uses(self, kind: str) -> dict[str, Use]:
        kek, signing = (self.aes if kind == "AES" else self.rsa), self.signer
        return {
            "encrypt": lambda p: p.encrypt(b"value", kek),
            "generate_data_key": lambda p: p.generate_data_key(kek),
            "decrypt": lambda p: p.decrypt(self.sealed[kind]),
            "sign": lambda p: p.sign(b"value", signing),
            "public_key": lambda p: p.public_key(signing),
            "mac": lambda p: p.mac(b"value", self.mac_key),
            "verify_mac": lambda p: p.verify_mac(b"value", self.mac),
            "describe": lambda p: p.describe(self.rsa),
            "key_versions": lambda p: p.key_versions(self.rsa),
            "get_rotation_policy": lambda p: p.get_rotation_policy(self.rsa),
            "rotate_key": lambda p: p.rotate_key(self.rsa),
            "service_time": lambda p: p.service_time(),
        }

    def options(self, kind: str, cloud: FakeAzure) -> dict[str, Any]:
        if kind == "AES":
            return {"vault_url": cloud.hsm.url, "managed_hsm": True}
        return {"sign_key": self.signer} if kind == "RSA, signed" else {"allow_unauthenticated_wrap": True}


def table() -> list[tuple[list[str], str, set[str], str]]:
    """Return operations, kind of key, permissions of an access policy and actions, row by row."""
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)
    return [
        (re.findall(r"`(\w+)`", operations), kind, set(re.findall(r"`(\w+)`", permissions)), actions)
        for operations, kind, permissions, actions in rows
    ]


def names(row: Any) -> str:
    return f"{'-'.join(row[0])} {row[1]}"


def test_the_table_has_every_operation() -> None:
    told = {operation for operations, *_ in table() for operation in operations}
    offered = {name for name in dir(AzureKMSProvider) if not name.startswith("_")}
    assert told == offered - {"aclose", "from_uri", "provider_name"} | {"mac", "verify_mac"}


@pytest.mark.parametrize("row", table(), ids=names)
def test_each_permission_of_an_access_policy_has_its_action(row: tuple[list[str], str, set[str], str]) -> None:
    actions = {
        "get": "keys/read",
        "list": "keys/read",
        "encrypt": "keys/encrypt/action",
        "decrypt": "keys/decrypt/action",
        "unwrapKey": "keys/unwrap/action",
        "sign": "keys/sign/action",
        "verify": "keys/verify/action",
        "rotate": "keys/rotate/action",
        "getRotationPolicy": "keyrotationpolicies/read",
    }
    assert {actions[permission] for permission in row[2]} == set(re.findall(r"`([\w/]+)`", row[3]))


@pytest.mark.parametrize("row", table(), ids=names)
async def test_an_operation_needs_the_permissions_of_the_page_and_each_of_them(
    row: tuple[list[str], str, set[str], str], cloud: FakeAzure, opening: Opening
) -> None:
    operations, kind, needed, _ = row
    keys = await Keys.make(cloud, opening)
    if operations[0] in {"mac", "verify_mac"}:
        kind = "AES"
    elif kind in {"EC", "any"}:
        kind = "RSA, unsigned"
    for operation in operations:
        use, options = keys.uses(kind)[operation], keys.options(kind, cloud)
        for vault in (cloud.vault, cloud.hsm):
            vault.deny(*(EVERY - needed))
        await use(opening(**options))
        for missing in needed:
            for vault in (cloud.vault, cloud.hsm):
                vault.deny(*(EVERY - needed), missing)
            with pytest.raises(ProviderAuthError):
                await use(opening(**options))
            cloud.heal()
            for vault in (cloud.vault, cloud.hsm):
                vault.deny(*(EVERY - needed))
        cloud.heal()


def test_the_sizes_of_the_page_are_those_of_the_code() -> None:
    told = ", ".join(str(size) for size in RSA_CAPACITIES.values())
    assert f"| plaintext | {told} bytes" in TEXT
    assert f"{AES_CAPACITY} under AES" in TEXT


def test_the_page_names_every_field_and_every_default() -> None:
    fields = AzureKMSConfig.__dataclass_fields__
    section = TEXT.split("| field of `AzureKMSConfig`")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", section)) >= fields.keys()
    defaults = AzureKMSConfig()
    assert f"| {defaults.key_max_age_s:g} |" in section
    assert f"| {defaults.connect_timeout_s:g}, {defaults.read_timeout_s:g} |" in section
    assert f"| {defaults.max_connections} |" in section


def test_the_hosts_of_the_page_are_those_that_need_not_be_listed() -> None:
    line = next(line for line in TEXT.splitlines() if line.startswith("| Hosts |"))
    assert all(cloud in line for cloud in azure_config.AUTHORITIES)
    assert all(f".{kind}." in line for kind in ("vault", "managedhsm"))


def on_the_fake(block: Block, cloud: FakeAzure) -> Block:
    """Return a block of Python as it is, but for where the vault is."""
    text = block.text.replace("https://acme.vault.azure.net", cloud.vault.url)
    assert text != block.text
    return Block(block.line, block.language, block.options, text, None)


def test_the_python_of_the_page_runs(cloud: FakeAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.vault.state.create_key("kek", size=2048, key_ops=("wrapKey", "unwrapKey"))
    cloud.vault.state.create_key("kek-signer", "EC")
    cloud.vault.state.create_key("audit", "EC")
    environment = {
        "SSL_CERT_FILE": str(cloud.ca_file),
        "AZURE_AUTHORITY_HOST": cloud.authority,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_CLIENT_SECRET": SECRET,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # The fake stands where the page's vault does: its host is taken for one of Azure's.
    monkeypatch.setattr(azure_config, "is_azure_host", lambda host: True)
    monkeypatch.setattr(AzureKMSConfig, "is_listed", lambda self, host: True)
    monkeypatch.chdir(tmp_path)
    runner = PageRunner(PAGE, tmp_path)
    try:
        for block in read_blocks(TEXT):
            if block.language == "python":
                runner.run(on_the_fake(block, cloud))
    finally:
        runner.close()
