"""A ciphertext has one spelling, and versions that the server takes or refuses."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from keystead.errors import (
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    ProviderConnectionError,
)
from keystead.providers.vault.client import MAX_BODY_SIZE
from keystead.providers.vault.provider import VaultKMSProvider
from tests.providers.vault.making import Making


def respelt(ciphertext: bytes, how: str) -> bytes:
    text = ciphertext.decode()
    prefix, body = text.rsplit(":", 1)
    altered = {
        "version 0": text.replace("vault:v1:", "vault:v0:"),
        "a leading zero": text.replace("vault:v1:", "vault:v01:"),
        "a plus sign": text.replace("vault:v1:", "vault:v+1:"),
        "no version": text.replace("vault:v1:", "vault:"),
        "a line break": f"{prefix}:{body[:8]}\n{body[8:]}",
        "a line break at the end": f"{text}\n",
        "a space": f" {text}",
        "the other alphabet": f"{prefix}:{base64.urlsafe_b64encode(base64.b64decode(body)).decode()}",
        "no padding": text.rstrip("="),
        "spare bits": f"{prefix}:{body[:-2]}{chr(ord(body[-2]) + 1)}=",
        "upper case": text.replace("vault", "Vault"),
        "nothing": "",
        "not ascii": "vault:v1:é",
        "a short body": "vault:v1:AAAA",
    }[how]
    return altered.encode()


@pytest.mark.parametrize(
    "how",
    [
        "version 0",
        "a leading zero",
        "a plus sign",
        "no version",
        "a line break",
        "a line break at the end",
        "a space",
        "the other alphabet",
        "no padding",
        "spare bits",
        "upper case",
        "nothing",
        "not ascii",
        "a short body",
    ],
)
async def test_another_spelling_of_a_ciphertext_does_not_decrypt(
    making: Making, provider: VaultKMSProvider, how: str
) -> None:
    # 95 bytes with nonce and tag: the base64 ends with one '=', and holds '+' or '/' sooner or later.
    key = making.bao.shared_key()
    sealed = await provider.encrypt(b"seventy" * 9 + b"1234", key)
    while not {"+", "/"} & set(sealed.ciphertext.decode()[9:]):
        sealed = await provider.encrypt(b"seventy" * 9 + b"1234", key)
    assert sealed.ciphertext.endswith(b"=")
    assert await provider.decrypt(sealed) == b"seventy" * 9 + b"1234"
    with pytest.raises(DecryptionError):
        await provider.decrypt(replace(sealed, ciphertext=respelt(sealed.ciphertext, how)))
    with pytest.raises(DecryptionError):
        await provider.rewrap(replace(sealed, ciphertext=respelt(sealed.ciphertext, how)))


async def test_the_server_itself_takes_other_spellings(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.shared_key()
    sealed = await provider.encrypt(b"seventy" * 9 + b"1234", key)
    for how in ("version 0", "a leading zero", "a line break"):
        body = {"ciphertext": respelt(sealed.ciphertext, how).decode()}
        assert making.bao.ask("POST", f"transit/decrypt/{key}", body).status == 200


async def test_version_and_algorithm_of_the_record_must_be_the_ciphertexts(
    making: Making, provider: VaultKMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", making.bao.shared_key())
    wrong_version = replace(sealed, key_reference=replace(sealed.key_reference, key_version="2"))
    unknown_version = replace(sealed, key_reference=replace(sealed.key_reference, key_version=None))
    for altered in (wrong_version, replace(sealed, algorithm="aes128-gcm96"), replace(sealed, algorithm="")):
        for call in (provider.decrypt(altered), provider.rewrap(altered)):
            with pytest.raises(DecryptionError):
                await call
    assert await provider.decrypt(unknown_version) == b"value"


async def test_a_record_that_names_no_key_there_could_be_is_refused_before_anything_is_sent(
    making: Making, provider: VaultKMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", making.bao.shared_key())
    making.proxy.requests.clear()
    for key_id in ("../sys/seal", "a b", ""):
        altered = replace(sealed, key_reference=replace(sealed.key_reference, key_id=key_id))
        for call in (provider.decrypt(altered), provider.rewrap(altered), provider.decrypt_foreign(altered)):
            with pytest.raises(KeyNotFoundError):
                await call
    assert making.paths() == []


async def test_a_version_that_is_not_there_is_not_told_from_altered_bytes(
    making: Making, provider: VaultKMSProvider
) -> None:
    sealed = await provider.encrypt(b"value", making.bao.shared_key())
    ciphertext = sealed.ciphertext.replace(b":v1:", b":v7:")
    reference = replace(sealed.key_reference, key_version="7")
    with pytest.raises(DecryptionError):
        await provider.decrypt(replace(sealed, ciphertext=ciphertext, key_reference=reference))


async def test_a_version_that_this_node_does_not_have_yet_is_an_outage_and_not_an_alteration(making: Making) -> None:
    bao = making.bao
    key = bao.new_key()
    provider = making.provider()
    bao.do("POST", f"transit/keys/{key}/rotate")
    sealed = await provider.encrypt(b"value", key)
    behind = b'{"errors":["invalid ciphertext: version is too new"]}'
    making.proxy.fail_next(1, status=400, body=behind, path="decrypt", headers={"Content-Type": "application/json"})
    with pytest.raises(ProviderConnectionError, match="VAULT_ADDR"):
        await provider.decrypt(sealed)
    assert await provider.decrypt(sealed) == b"value"


async def test_a_version_that_is_forbidden_says_so_and_works_again_when_it_is_not(
    making: Making, provider: VaultKMSProvider
) -> None:
    bao = making.bao
    key = bao.new_key()
    sealed = await provider.encrypt(b"value", key)
    bao.do("POST", f"transit/keys/{key}/rotate")
    bao.do("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
    for call in (provider.decrypt(sealed), provider.rewrap(sealed)):
        with pytest.raises(KeyStateError, match="min_decryption_version"):
            await call
    bao.do("POST", f"transit/keys/{key}/config", {"min_decryption_version": 1})
    assert await provider.decrypt(sealed) == b"value"


async def test_ciphertexts_of_another_mount_and_of_the_other_spelling_of_a_key_id_decrypt(
    making: Making, provider: VaultKMSProvider
) -> None:
    bao = making.bao
    mount = bao.mount_transit()
    other = bao.new_key(mount=mount)
    rules = f'path "{mount}/*" {{ capabilities = ["read", "update"] }}'
    elsewhere = making.provider(token=bao.new_token(bao.user_policy, bao.policy(rules)))
    sealed = await elsewhere.encrypt(b"value", f"{mount}/keys/{other}")
    assert sealed.key_reference.key_id == f"{mount}/{other}"
    assert sealed.key_reference.key_alias == f"{mount}/keys/{other}"
    assert await elsewhere.decrypt(sealed) == b"value"
    key = bao.new_key()
    here = await provider.encrypt(b"value", f"transit/keys/{key}")
    assert (here.key_reference.key_id, here.key_reference.key_alias) == (key, f"transit/keys/{key}")
    assert await provider.decrypt(here) == b"value"
    assert (await provider.describe(f"transit/{key}")).key_reference.key_id == key


async def test_what_can_be_encrypted_can_be_decrypted_up_to_the_servers_limit(making: Making) -> None:
    key = making.bao.new_key(type="xchacha20-poly1305")
    provider = making.provider(vault_addr=making.bao.url, timeout=60)
    context = {"about": "x" * 1000}
    await provider.encrypt(b"small", key)
    largest = largest_plaintext(MAX_BODY_SIZE, len(context["about"]) + 13)
    sealed = await provider.encrypt(bytes(largest), key, context=context)
    assert await provider.decrypt(sealed) == bytes(largest)
    with pytest.raises(InvalidInputError, match=r"km\.local_encrypt"):
        await provider.encrypt(bytes(largest + 400), key, context=context)


def largest_plaintext(body_size: int, context_size: int) -> int:
    """Return about how much fits into a body beside a context, both in base64."""
    return (body_size - 300 - (context_size + 2) // 3 * 4) // 4 * 3
