"""``keystead encrypt`` and ``keystead decrypt``: files, pipes and short texts."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final, cast

import typer

from keystead.cli.bars import byte_bar
from keystead.cli.frame import Call, command, say, wrong_usage
from keystead.cli.render import Outcome
from keystead.cli.targets import STDOUT, ended_by_signals, open_target, refuse_binary_terminal
from keystead.errors import DecryptionError, InvalidCiphertextError
from keystead.manager import payloads

LARGE: Final = 16 * 1024 * 1024

Input = Annotated[
    str, typer.Argument(metavar="FILE", show_default=False, help="The file to read; stdin without one, or for -.")
]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="OUT", help="The file to write, complete or not at all; - is stdout."),
]
Keyring = Annotated[str | None, typer.Option("--keyring", metavar="NAME", help="Instead of `files`, or `default`.")]
Context = Annotated[
    list[str] | None,
    typer.Option("--context", metavar="KEY=VALUE", help="Authenticated and not stored; may be given again."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "encrypt")(encrypt)
    command(app, "decrypt")(decrypt)


def encrypt(
    call: Call,
    file: Input = STDOUT,
    *,
    output: Output = None,
    text: Annotated[bool, typer.Option("--text", help="A ks1. text, for at most 64 MiB.")] = False,
    keyring: Keyring = None,
    context: Context = None,
) -> Outcome | None:
    """Encrypt FILE or stdin, of any size, under the keyring `files`; or as text under `default`."""
    pairs = context_of(context)
    if text:
        return _encrypt_text(call, file, output, keyring, pairs)
    _require_output_for_json(call, output)
    refuse_binary_terminal(output)
    with (
        open_source(file) as source,
        open_target(output, is_text=False) as target,
        progress_of(source, "encrypting") as tick,
    ):
        size = call.run(
            lambda km: payloads.seal_stream(km, source, target, keyring=keyring, context=pairs, progress=tick),
            creates=True,
        )
    return Outcome({"output": output, "form": "binary", "plaintext_bytes": size})


def decrypt(
    call: Call,
    file: Input = STDOUT,
    output: Output = None,
    keyring: Keyring = None,
    context: Context = None,
) -> Outcome | None:
    """Decrypt FILE or stdin, whichever form it has. Exit code 3: wrong key or context, or altered.

    To a file, nothing is written unless all of it is good. To a pipe, each good chunk of a large file is passed on
    before a later one is looked at: only exit code 0 says that all of it was good.
    """
    pairs = context_of(context)
    _require_output_for_json(call, output)
    with (
        open_source(file) as source,
        open_target(output, is_text=False) as target,
        progress_of(source, "decrypting") as tick,
        naming(file),
    ):
        opened = call.run(
            lambda km: payloads.open_any(km, source, target, keyring=keyring, context=pairs, progress=tick)
        )
    return Outcome({"output": output, "form": opened.form, "plaintext_bytes": opened.size_bytes})


def context_of(given: list[str] | None) -> dict[str, str] | None:
    """Return the context in ``--context key=value`` options."""
    pairs: dict[str, str] = {}
    for item in given or []:
        key, sign, value = item.partition("=")
        if not sign or not key:
            wrong_usage(f"--context reads KEY=VALUE, not {item!r}")
        if key in pairs:
            wrong_usage(f"--context gives {key!r} twice")
        pairs[key] = value
    return pairs or None


@contextmanager
def open_source(path: str) -> Iterator[BinaryIO]:
    """Open what is to be read; ``-`` is stdin."""
    if path != STDOUT:
        with Path(path).open("rb") as file:
            yield file
        return
    if sys.stdin is None:
        wrong_usage("stdin is closed; name a file")
    if sys.stdin.isatty():
        say("reading from the terminal; Ctrl-D ends the input")
    with ended_by_signals():
        yield cast(BinaryIO, sys.stdin.buffer)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Say of what cannot be read as a ciphertext, or does not open, which file it is."""
    name = "what stdin gives" if path == STDOUT else path
    try:
        yield
    except InvalidCiphertextError as exc:
        raise InvalidCiphertextError(
            f"{name} is nothing that Keystead encrypted, or not all of it ({exc}): name a file as `keystead encrypt` "
            "wrote it"
        ) from None
    except DecryptionError as exc:
        if type(exc) is not DecryptionError:
            raise
        raise DecryptionError(f"{name}: {exc}") from None


@contextmanager
def progress_of(source: BinaryIO, what: str) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on stderr for a large input, if somebody is there to see it."""
    try:
        total = os.fstat(source.fileno()).st_size
    except (OSError, io.UnsupportedOperation):
        total = 0
    if total < LARGE:
        yield None
        return
    with byte_bar(what) as tick:
        done = 0

        def advance(size: int) -> None:
            nonlocal done
            done += size
            tick(done, total)  # type: ignore[misc]

        yield None if tick is None else advance


def _encrypt_text(
    call: Call, file: str, output: str | None, keyring: str | None, context: dict[str, str] | None
) -> Outcome | None:
    with open_source(file) as source:
        text, size = call.run(lambda km: payloads.seal_text(km, source, keyring=keyring, context=context), creates=True)
    answer = {"output": output, "form": "text", "plaintext_bytes": size}
    if output is None:
        return Outcome({**answer, "text": text}, text)
    with open_target(output, is_text=True) as target:
        target.write(text.encode("ascii") + b"\n")
    return Outcome(answer)


def _require_output_for_json(call: Call, output: str | None) -> None:
    if call.is_json and output in (None, STDOUT):
        wrong_usage("with --json the answer is on stdout, so the data needs -o FILE")
