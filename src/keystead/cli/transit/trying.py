"""``keystead transit encrypt`` and ``decrypt``: one value, to try a key out."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from keystead.cli.data import open_source
from keystead.cli.frame import Call, command, wrong_usage
from keystead.cli.render import Outcome
from keystead.cli.targets import STDOUT, open_target
from keystead.errors import InvalidInputError
from keystead.manager import transit_keys
from keystead.manager.manager import KeyManager
from keystead.manager.transit import transit
from keystead.transit import encrypting

LARGEST: Final = 32 * 1024 * 1024
"""What the machine API takes in one request."""
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]
Input = Annotated[
    str, typer.Argument(metavar="FILE", show_default=False, help="The file to read; stdin without one, or for -.")
]
Context = Annotated[
    str, typer.Option("--context", metavar="TEXT", help="What a derived key is derived by, before base64.")
]
Aad = Annotated[str, typer.Option("--aad", metavar="TEXT", help="Authenticated and not stored, before base64.")]
Tenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose key it is, where there are tenants.")]


def register(noun: typer.Typer) -> None:
    """Add the commands."""
    command(noun, "encrypt")(encrypt)
    command(noun, "decrypt")(decrypt)


def encrypt(
    call: Call,
    *,
    name: Name,
    file: Input = STDOUT,
    context: Context = "",
    aad: Aad = "",
    version: Annotated[int, typer.Option("--version", min=0, help="By which version; the latest without.")] = 0,
    tenant: Tenant = "",
) -> Outcome:
    """Encrypt stdin or FILE, up to 32 MiB, and show the `vault:vN:` text."""
    plaintext = _read(file)

    async def act(km: KeyManager) -> tuple[str, int]:
        engine = await transit(km)
        key = await transit_keys.get(engine, tenant, name)
        key.require_usable()
        made = encrypting.encrypt(key, plaintext, context=context.encode(), aad=aad.encode(), version=version)
        await engine.uses.record(key.record, "encrypt")
        return made

    text, used = call.run(act)
    return Outcome({"ciphertext": text, "key_version": used}, text)


def decrypt(
    call: Call,
    *,
    name: Name,
    file: Input = STDOUT,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="OUT", help="The file to write; - is stdout.")
    ] = None,
    context: Context = "",
    aad: Aad = "",
    tenant: Tenant = "",
) -> Outcome:
    """Decrypt a `vault:vN:` text. Exit code 3: another key, context or associated data, or altered."""
    if call.is_json and output in (None, STDOUT):
        wrong_usage("with --json the answer is on stdout, so the data needs -o FILE")
    try:
        text = _read(file).decode("ascii").strip()
    except UnicodeDecodeError:
        raise InvalidInputError("what is to be decrypted is no `vault:vN:` text") from None

    async def act(km: KeyManager) -> bytes:
        engine = await transit(km)
        key = await transit_keys.get(engine, tenant, name)
        key.require_usable()
        plaintext = encrypting.decrypt(key, text, context=context.encode(), aad=aad.encode())
        await engine.uses.record(key.record, "decrypt")
        return plaintext

    plaintext = call.run(act)
    with open_target(output, is_text=False) as target:
        target.write(plaintext)
    return Outcome({"output": output, "plaintext_bytes": len(plaintext)})


def _read(file: str) -> bytes:
    with open_source(file) as source:
        content = source.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InvalidInputError("Transit encrypts up to 32 MiB at once; `keystead encrypt` takes files of any size")
    return content
