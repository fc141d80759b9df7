"""What the documentation's page says of permissions, limits and Python is so."""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ProviderAuthError
from keystead.model import EncryptedData, Signature
from keystead.providers.gcp.errors import PERMISSIONS as ASKED_FOR
from keystead.providers.gcp.provider import GCPKMSProvider
from tests.docs.blocks import ROOT, Block, read_blocks
from tests.docs.page_runner import PageRunner
from tests.fakes.gcp_kms import FakeCloudKms
from tests.fakes.gcp_kms_faults import PERMISSIONS
from tests.providers.gcp.conftest import Make

PAGE = ROOT / "docs" / "kms" / "gcp.md"
TEXT = PAGE.read_text(encoding="utf-8")

_rings = itertools.count(1)

Use = Callable[[GCPKMSProvider, "Keys"], Awaitable[Any]]


@dataclass
class Keys:
    """A key of each purpose, and what was made with them while everything was allowed."""

    encrypting: str
    mac_key: str
    signing: str
    sealed: EncryptedData
    mac: Signature

    @classmethod
    async def make(cls, service: FakeCloudKms, provider: GCPKMSProvider) -> Keys:
        ring = service.create_ring(f"page-{next(_rings)}")
        encrypting, mac_key = service.create_key("encrypting", ring=ring), service.create_key("mac", "MAC", ring=ring)
        signing = service.create_key("signing", "ASYMMETRIC_SIGN", ring=ring)
        sealed, mac = await provider.encrypt(b"value", encrypting), await provider.mac(b"value", mac_key)
        return cls(encrypting, mac_key, signing, sealed, mac)


USES: dict[str, list[Use]] = {
    "`encrypt`, `generate_data_key`": [
        lambda p, keys: p.encrypt(b"value", keys.encrypting),
        lambda p, keys: p.encrypt(bytes(9 * 1024), keys.encrypting),
        lambda p, keys: p.generate_data_key(keys.encrypting),
    ],
    "`decrypt`, `decrypt_foreign`": [
        lambda p, keys: p.decrypt(keys.sealed),
        lambda p, keys: p.decrypt_foreign(keys.sealed),
    ],
    "`describe`": [lambda p, keys: p.describe(keys.encrypting)],
    "`describe` of a key that signs or makes MACs": [
        lambda p, keys: p.describe(keys.mac_key),
        lambda p, keys: p.describe(keys.signing),
    ],
    "`get_rotation_policy`": [lambda p, keys: p.get_rotation_policy(keys.encrypting)],
    "`rotate_key`": [lambda p, keys: p.rotate_key(keys.encrypting)],
    "`mac`": [lambda p, keys: p.mac(b"value", keys.mac_key)],
    "`verify_mac`": [lambda p, keys: p.verify_mac(b"value", keys.mac)],
    "`sign`": [lambda p, keys: p.sign(b"value", keys.signing)],
    "`public_key`": [lambda p, keys: p.public_key(keys.signing)],
    "`public_key` of a named version": [lambda p, keys: p.public_key(keys.signing, version="1")],
    "`check_permissions`": [lambda p, keys: p.check_permissions(keys.encrypting)],
}


def table() -> dict[str, set[str]]:
    """Return what the page says each operation needs: what stands before the semicolon."""
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)
    return {
        operation: set(re.findall(r"`(cloudkms\.[A-Za-z.]+)`", needed.partition(";")[0]))
        for operation, needed in rows
        if "cloudkms.crypto" in needed or needed == "none"
    }


def test_the_table_has_every_operation() -> None:
    assert table().keys() == USES.keys()
    covered = set(re.findall(r"`([a-z_]+)`", " ".join(table())))
    assert covered >= ASKED_FOR.keys()


@pytest.mark.parametrize("operation", USES)
async def test_an_operation_needs_the_permissions_of_the_page_and_each_of_them(
    operation: str, make: Make, service: FakeCloudKms
) -> None:
    needed, every = table()[operation], set(PERMISSIONS.values())
    for use in USES[operation]:
        keys = await Keys.make(service, make())
        service.faults.deny(*(every - needed))
        await use(make(), keys)
        service.faults.heal()
    for missing in needed:
        keys = await Keys.make(service, make())
        service.faults.deny(*(every - needed), missing)
        with pytest.raises(ProviderAuthError, match=re.escape(missing)):
            await USES[operation][0](make(), keys)
        service.faults.heal()


@pytest.mark.parametrize("purpose", ["mac", "sign", "public_key", "describe"])
async def test_what_a_key_id_that_names_its_version_needs_is_named_where_it_is_missing(
    purpose: str, make: Make, service: FakeCloudKms
) -> None:
    keys = await Keys.make(service, make())
    uses: dict[str, Use] = {
        "mac": lambda p, keys: p.mac(b"value", f"{keys.mac_key}/cryptoKeyVersions/1"),
        "sign": lambda p, keys: p.sign(b"value", f"{keys.signing}/cryptoKeyVersions/1"),
        "describe": lambda p, keys: p.describe(f"{keys.encrypting}/cryptoKeyVersions/1"),
        "public_key": lambda p, keys: p.public_key(f"{keys.signing}/cryptoKeyVersions/1"),
    }
    service.faults.deny("cloudkms.cryptoKeyVersions.list")
    await uses[purpose](make(), keys)
    service.faults.heal()
    needed = "cloudkms.cryptoKeyVersions." + ("viewPublicKey" if purpose == "public_key" else "get")
    service.faults.deny(needed)
    with pytest.raises(ProviderAuthError, match=re.escape(needed)):
        await uses[purpose](make(), keys)
    service.faults.heal()


def test_the_roles_of_the_page_hold_what_a_store_and_a_rotation_need() -> None:
    roles = re.findall(r"roles create (\w+) .*?--permissions=\\\n((?:[\w.,\\]+\n)+?)gcloud", TEXT, re.DOTALL)
    held = {name: set(re.findall(r"cloudkms\.[\w.]+\w", permissions)) for name, permissions in roles}
    needed = table()
    store = ["`encrypt`, `generate_data_key`", "`decrypt`, `decrypt_foreign`", "`describe`"]
    assert held["keysteadStore"] == set().union(*(needed[operation] for operation in store))
    assert held["keysteadRotate"] == needed["`rotate_key`"] | {"cloudkms.cryptoKeyVersions.get"}
    assert set(ASKED_FOR["rotate_key"]) == held["keysteadRotate"]


async def test_the_role_for_a_store_lacks_nothing_that_a_doctor_asks_for(make: Make, service: FakeCloudKms) -> None:
    keys, needed = await Keys.make(service, make()), table()
    store = ["`encrypt`, `generate_data_key`", "`decrypt`, `decrypt_foreign`", "`describe`"]
    service.faults.deny(*(set(PERMISSIONS.values()) - set().union(*(needed[operation] for operation in store))))
    allowed = await make().check_permissions(keys.encrypting)
    service.faults.heal()
    names = ("encrypt", "decrypt", "generate_data_key", "describe", "get_rotation_policy")
    assert {name for name, may in allowed.items() if may} == set(names)


def on_the_fake(block: Block, service: FakeCloudKms) -> Block:
    """Return a block of Python as it is, but for where the service is."""
    where = f"endpoint={service.endpoint!r}, ca_file={service.ca_file!r}, credentials_file={service.credentials_file!r}"
    text = block.text.replace('key_ring="prod")', f'key_ring="prod", {where})')
    assert text != block.text
    return Block(block.line, block.language, block.options, text, None)


def test_the_python_of_the_page_runs(service: FakeCloudKms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = "projects/shop/locations/europe-west1/keyRings/prod"
    service.keys.create_ring(ring)
    service.create_key("keystead", ring=ring)
    service.create_key("audit", "ASYMMETRIC_SIGN", "EC_SIGN_ED25519", ring=ring)
    service.create_key("chain", "MAC", ring=ring)
    monkeypatch.chdir(tmp_path)
    runner = PageRunner(PAGE, tmp_path)
    try:
        for block in read_blocks(TEXT):
            if block.language == "python":
                runner.run(on_the_fake(block, service))
    finally:
        runner.close()


def test_the_page_names_every_algorithm_that_is_ours() -> None:
    from keystead.providers.gcp.keys import ALGORITHMS

    told = TEXT.replace("`..._", "`RSA_SIGN_PSS_") + TEXT.replace("`..._", "`RSA_SIGN_PKCS1_")
    assert [name for name in ALGORITHMS if f"`{name}`" not in told] == []
