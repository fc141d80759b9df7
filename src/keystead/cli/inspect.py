"""``keystead inspect``: what a ciphertext tells without a key."""

from __future__ import annotations

from typing import BinaryIO, Final

import typer

from keystead.cli.data import Input, naming, open_source
from keystead.cli.frame import Call, command
from keystead.cli.render import Outcome, moment, pairs
from keystead.cli.targets import STDOUT
from keystead.crypto.envelope import HEADER_SIZE, MAX_PLAINTEXT, OVERHEAD, SUITE_STREAM
from keystead.crypto.envelope import inspect as inspect_envelope
from keystead.model import EncryptedData
from keystead.model.counts import counted

TEXTS: Final = (b"ks1.", b"ks2.")
KMS_MAGIC: Final = 0xAF
LONGEST: Final = 2 * (MAX_PLAINTEXT + OVERHEAD)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "inspect")(inspect)


def inspect(call: Call, file: Input = STDOUT) -> Outcome:
    """Say what a ciphertext says of itself: its form, its data key, its sizes. Needs no key, and verifies nothing."""
    with open_source(file) as source, naming(file):
        head = source.read(HEADER_SIZE)
        if head[1:2] == bytes([SUITE_STREAM]):
            seen = inspect_envelope(head)
            size: int | None = len(head) + _count(source)
            form, plaintext_size = "stream", None
        else:
            blob = head + source.read(LONGEST)
            is_text = blob.lstrip()[:4] in TEXTS
            content = blob.strip().decode("ascii", "replace") if is_text else blob
            if blob[:1] == bytes([KMS_MAGIC]) or (isinstance(content, str) and content.startswith("ks2.")):
                return _kms(EncryptedData.parse(content), "text" if is_text else "binary")
            seen = inspect_envelope(content)
            form, size, plaintext_size = "text" if is_text else "message", seen.size, seen.plaintext_size
    data = {
        "form": form,
        "suite": f"0x{seen.suite:02x}",
        "suite_name": seen.suite_name,
        "data_key_id": seen.data_key_id,
        "salt": seen.salt,
        "size_bytes": size,
        "plaintext_bytes": plaintext_size,
    }
    lines = [
        ("form", form),
        ("suite", f"{seen.suite_name} (0x{seen.suite:02x})"),
        ("data key id", seen.data_key_id),
        ("salt", seen.salt.hex()),
        ("size", counted(size or 0, "byte")),
    ]
    if plaintext_size is not None:
        lines.append(("plaintext", counted(plaintext_size, "byte")))
    return Outcome(data, pairs(lines))


def _kms(sealed: EncryptedData, form: str) -> Outcome:
    reference = sealed.key_reference
    data = {
        "form": f"kms {form}",
        "algorithm": sealed.algorithm,
        "provider": reference.provider,
        "key_id": reference.key_id,
        "key_version": reference.key_version,
        "encrypted_at": sealed.encrypted_at,
        "context_keys": sorted(sealed.context),
        "size_bytes": len(sealed.ciphertext),
    }
    lines = [
        ("form", f"encrypted by a KMS, {form}"),
        ("algorithm", sealed.algorithm),
        ("KEK", f"{reference.qualified_id} version {reference.key_version or '-'}"),
        ("encrypted at", moment(sealed.encrypted_at)),
        ("context keys", ", ".join(sorted(sealed.context)) or "-"),
        ("size", counted(len(sealed.ciphertext), "byte")),
    ]
    return Outcome(data, pairs(lines))


def _count(source: BinaryIO) -> int:
    size = 0
    while chunk := source.read(1024 * 1024):
        size += len(chunk)
    return size
