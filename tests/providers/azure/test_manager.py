"""From end to end: a store whose WRAP key is wrapped by Azure, named by a URI, signed in by the environment."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keystead import KeyManager
from keystead.errors import ConfigurationError, KeyDecryptionFailError, KeyStateError, ProviderConnectionError
from keystead.lifecycle.wrapping import KekWrapper, row_context
from keystead.manager import admin
from keystead.model import WRAP_KEYRING, KeyRecord
from keystead.providers.azure.wrap import RsaWrap, context_hash, parse
from keystead.stores import open_store
from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT, FakeAzure, FakeVault
from tests.providers.azure.conftest import Opening
from tests.services.azure import new_name


@dataclass
class Installation:
    """A store, and the URI of the KEK it is under."""

    uri: str
    url: str
    path: Path
    vault: FakeVault
    kek: str
    signer: str

    def opened(self, uri: str | None = None, **options: Any) -> KeyManager:
        return KeyManager.open(uri or self.uri, store=self.url, background=False, **options)

    async def refuses(self, error: type[Exception], uri: str | None = None, match: str | None = None) -> None:
        """Open the store, which must fail."""
        km = self.opened(uri)
        try:
            with pytest.raises(error, match=match):
                await km.initialize()
        finally:
            await km.close()

    async def rows(self) -> list[KeyRecord]:
        store = open_store(self.url)
        try:
            async with store.reading() as work:
                return sorted(await work.keys(keyring=WRAP_KEYRING), key=lambda row: row.version)
        finally:
            await store.aclose()

    async def store_id(self) -> str:
        store = open_store(self.url)
        try:
            return (await store.open()).store_id
        finally:
            await store.aclose()

    def execute(self, statement: str, *values: object) -> None:
        """Change the database as somebody does who has the file: no trigger stops them."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f'DROP TRIGGER "{trigger}"')
            connection.execute(statement, values)


@pytest.fixture
def installed(cloud: FakeAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Installation]:
    """Makes an installation under an RSA key of the vault, or an AES key of the managed HSM."""
    environment = {
        "SSL_CERT_FILE": str(cloud.ca_file),
        "AZURE_AUTHORITY_HOST": cloud.authority,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_CLIENT_SECRET": SECRET,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def make(kind: str) -> Installation:
        vault = cloud.vault if kind == "vault" else cloud.hsm
        kek, signer = new_name("kek"), new_name("signer")
        vault.state.create_key(kek, "RSA" if kind == "vault" else "oct-HSM")
        vault.state.create_key(signer, "EC" if kind == "vault" else "EC-HSM")
        option = f"sign_key={signer}" if kind == "vault" else "managed_hsm=true"
        uri = f"azurekms://{vault.host}/{kek}?allow_host=true&{option}"
        path = tmp_path / "keys.db"
        return Installation(uri, f"sqlite:///{path}", path, vault, kek, signer)

    return make


@pytest.fixture
def vault(installed: Callable[[str], Installation]) -> Installation:
    return installed("vault")


@pytest.mark.parametrize("kind", ["vault", "hsm"])
async def test_a_store_survives_restarts_rotations_and_rewraps(
    installed: Callable[[str], Installation], kind: str
) -> None:
    there = installed(kind)
    async with there.opened() as km:
        old = km.local_encrypt(b"before", context={"row": "1"})
        await km.rotate_data_key(promote="now")
        new = km.local_encrypt(b"after", context={"row": "2"})
    before = (await there.rows())[-1]
    async with there.opened() as km:
        assert km.local_decrypt(old, context={"row": "1"}) == b"before"
        report = await admin.rewrap(km, new_kek_version=True)
        assert report.data_keys > 0
    after = (await there.rows())[-1]
    assert (
        (before.kek_key_id, before.kek_provider)
        == (after.kek_key_id, "azure")
        == (there.vault.key_id(there.kek), "azure")
    )
    assert before.kek_version != after.kek_version == there.vault.state.key(there.kek).versions[-1].id
    async with there.opened() as km:
        assert km.local_decrypt(old, context={"row": "1"}) == b"before"
        assert km.local_decrypt(new, context={"row": "2"}) == b"after"


async def test_old_versions_of_the_kek_can_be_disabled_after_a_rewrap(vault: Installation) -> None:
    async with vault.opened() as km:
        blob = km.local_encrypt(b"value")
        await admin.rewrap(km, new_kek_version=True)
    first = vault.vault.state.key(vault.kek).versions[0].id
    vault.vault.state.set_enabled(vault.kek, False, version=first)
    async with vault.opened() as km:
        assert km.local_decrypt(blob) == b"value"


async def test_wraps_swapped_between_rows_open_nothing(vault: Installation) -> None:
    async with vault.opened() as km:
        await admin.rewrap(km)
    first, second = await vault.rows()
    for row, other in ((first, second), (second, first)):
        statement = "UPDATE data_keys SET wrapped_key = ?, kek_version = ? WHERE id = ?"
        vault.execute(statement, other.wrapped_key, other.kek_version, row.id)
    before = vault.vault.calls()
    await vault.refuses(KeyDecryptionFailError)
    assert not [path for _, path in vault.vault.server.requests[before:] if path.endswith("/unwrapkey")]


async def test_a_wrap_forged_with_the_public_key_opens_nothing(vault: Installation, opening: Opening) -> None:
    """The attack that signatures are for: whoever can write a row puts a key there that they know."""
    async with vault.opened() as km:
        km.local_encrypt(b"value")
    (row,) = await vault.rows()
    genuine = parse(row.wrapped_key or b"")
    assert isinstance(genuine, RsaWrap)
    public = load_der_public_key((await opening().public_key(vault.kek)).der)
    assert isinstance(public, rsa.RSAPublicKey)
    known_key, hashed = b"a key that the attacker knows, 32", context_hash(row_context(await vault.store_id(), row))
    wrapped = public.encrypt(hashed + known_key[:32], padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))
    for forged in (RsaWrap(wrapped), RsaWrap(wrapped, genuine.signer, genuine.signature)):
        vault.execute("UPDATE data_keys SET wrapped_key = ? WHERE id = ?", forged.to_bytes(), row.id)
        await vault.refuses(KeyDecryptionFailError)
    # Where signatures were declined, the forged key is taken: this is what is declined.
    vault.execute("UPDATE data_keys SET wrapped_key = ? WHERE id = ?", RsaWrap(wrapped).to_bytes(), row.id)
    (forged_row,) = await vault.rows()
    trusting = KekWrapper({"azure": opening(allow_unauthenticated_wrap=True)}, os.urandom)
    assert await trusting.unwrap(await vault.store_id(), forged_row) == known_key[:32]


@pytest.mark.parametrize("column", ["created", "algorithm"])
async def test_a_row_whose_columns_were_changed_opens_nothing(vault: Installation, column: str) -> None:
    async with vault.opened():
        pass
    (row,) = await vault.rows()
    changed = "2020-01-01T00:00:00.000000Z" if column == "created" else "AES-128-GCM"
    vault.execute(f"UPDATE data_keys SET {column} = ? WHERE id = ?", changed, row.id)
    await vault.refuses(KeyDecryptionFailError)


async def test_a_store_is_not_made_under_an_rsa_key_that_nobody_signs_for(vault: Installation) -> None:
    await vault.refuses(ConfigurationError, vault.uri.replace(f"&sign_key={vault.signer}", ""), match="sign_key")


async def test_a_disabled_kek_opens_nothing_and_says_so(vault: Installation) -> None:
    async with vault.opened():
        pass
    vault.vault.state.set_enabled(vault.kek, False)
    await vault.refuses(KeyStateError)


async def test_an_outage_at_the_start_is_one_and_passes(vault: Installation) -> None:
    async with vault.opened() as km:
        blob = km.local_encrypt(b"value")
    vault.vault.fail_next(50)
    await vault.refuses(ProviderConnectionError)
    vault.vault.heal()
    async with vault.opened() as km:
        assert km.local_decrypt(blob) == b"value"


async def test_opening_a_store_again_is_one_unwrap_however_many_keyrings_it_has(vault: Installation) -> None:
    async with vault.opened() as km:
        await km.keyring("a second one")
    vault.vault.server.requests.clear()
    async with vault.opened() as km:
        km.local_encrypt(b"value")
        await km.keyring("a second one")
    asked = [path.rpartition("/")[2] for _, path in vault.vault.server.requests]
    assert asked.count("unwrapkey") == 1
    assert len(asked) <= 4  # besides: a challenge, and the two keys' public halves


async def test_what_the_manager_encrypts_by_azure_is_read_back_by_its_record(vault: Installation) -> None:
    async with vault.opened(context_prefix="orders") as km:
        data = await km.encrypt(b"value", context={"row": "1"})
        field = await km.encrypt_field({"a": 1}, context={"row": "1"})
        assert await km.decrypt(data.to_dict(), context={"row": "1"}) == b"value"
        assert await km.decrypt_field(str(field)) == {"a": 1}
        pair = await km.generate_data_key(key_spec="AES_128")
        assert bytes((await km.open_data_key(pair.encrypted_key)).plaintext_key) == bytes(pair.plaintext_key)
