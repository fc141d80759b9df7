"""``keystead transit wrapping-key``, ``import`` and ``import-version``: key material from outside."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.cli.frame import Call, command, duration_option, wrong_usage
from keystead.cli.render import Outcome
from keystead.errors import ConfigurationError
from keystead.manager import transit_keys
from keystead.manager.manager import KeyManager
from keystead.manager.transit import transit
from keystead.model import TransitType
from keystead.transit.administration import NewTransitKey
from keystead.transit.importing import require_hash
from keystead.transit.imports import Given
from keystead.transit.opened import OpenKey

_LARGEST: Final = 1 << 20
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]
Tenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose key it is, where there are tenants.")]
Wrapped = Annotated[
    Path | None,
    typer.Option("--wrapped", metavar="FILE", help="The material in base64, wrapped by what `wrapping-key` shows."),
]
PublicKey = Annotated[
    Path | None, typer.Option("--public-key", metavar="FILE", help="A public key in PEM, without its private half.")
]
HashName = Annotated[str, typer.Option("--hash", metavar="NAME", help="The hash of OAEP that it was wrapped with.")]


def register(noun: typer.Typer) -> None:
    """Add the commands."""
    command(noun, "wrapping-key")(wrapping_key)
    command(noun, "import")(bring_in)
    command(noun, "import-version")(bring_in_version)


def wrapping_key(call: Call) -> Outcome:
    """Show the public key that key material is wrapped by on its way in: RSA-OAEP, and RFC 5649 under that."""

    async def ask(km: KeyManager) -> str:
        return await (await transit(km)).imports.wrapping_key()

    text = call.run(ask, creates=True)
    return Outcome({"public_key": text}, text.rstrip())


def bring_in(
    call: Call,
    *,
    name: Name,
    type: Annotated[TransitType, typer.Option("--type", help="What it is.")],
    wrapped: Wrapped = None,
    public_key: PublicKey = None,
    hash: HashName = "SHA256",
    derived: Annotated[bool, typer.Option("--derived", help="A key of its own for each context.")] = False,
    allow_rotation: Annotated[
        bool, typer.Option("--allow-rotation", help="Versions may be made here as well, later.")
    ] = False,
    auto_rotate: Annotated[
        str | None, typer.Option("--auto-rotate", metavar="30d", help="Add a version when the latest is so old.")
    ] = None,
    tenant: Tenant = "",
) -> Outcome:
    """Make a key of material from outside, or of a public key, which then encrypts or verifies alone.

    What Vault or OpenBao encrypted under the same material decrypts at once.
    """
    period = duration_option("--auto-rotate", auto_rotate)
    if period and not allow_rotation:
        wrong_usage("--auto-rotate needs --allow-rotation: a version would be made here")
    wanted = NewTransitKey(
        type,
        derived=derived,
        allow_rotation=allow_rotation,
        auto_rotate_s=0 if period is None else round(period.total_seconds()),
    )
    given = _given(wrapped, public_key, hash)

    async def act(km: KeyManager) -> OpenKey:
        imports = (await transit(km)).imports
        cure = f"`keystead transit import-version {shlex.quote(name)}` adds a version to it"
        with transit_keys.curing("existing key", cure):
            return await imports.new_key(tenant, name, wanted, given)

    return _answer(call.run(act, creates=True), f"brought in {type} key {name!r}")


def bring_in_version(
    call: Call,
    *,
    name: Name,
    wrapped: Wrapped = None,
    public_key: PublicKey = None,
    hash: HashName = "SHA256",
    tenant: Tenant = "",
) -> Outcome:
    """Add a version of material from outside to an imported key, or the private half that its latest one lacks."""
    given = _given(wrapped, public_key, hash)

    async def act(km: KeyManager) -> OpenKey:
        engine = await transit(km)
        key = await transit_keys.get(engine, tenant, name)
        cure = f"this one was made or rotated here, and `keystead transit rotate {shlex.quote(name)}` adds a version"
        with transit_keys.curing("imported key", cure):
            return await engine.imports.new_version(key, given)

    key = call.run(act)
    return _answer(key, f"version {key.latest} of {name!r} is the latest")


def _given(wrapped: Path | None, public_key: Path | None, hash_name: str) -> Given:
    if (wrapped is None) is (public_key is None):
        wrong_usage("give --wrapped FILE or --public-key FILE, one of them")
    algorithm = require_hash(hash_name)
    if wrapped is not None:
        return Given("".join(_text(wrapped).split()), algorithm=algorithm)
    return Given(None, _text(public_key or Path()), algorithm)


def _text(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            return file.read(_LARGEST)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is neither base64 nor PEM") from None


def _answer(key: OpenKey, told: str) -> Outcome:
    record = key.record
    data = {"name": record.name, "tenant": record.tenant, "type": record.type, "latest": key.latest}
    return Outcome({**data, "imported": record.imported, "allow_rotation": record.allow_rotation}, told)
