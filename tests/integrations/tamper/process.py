"""Makes providers of places that are told as data; as a program, does the tasks it reads in a process of its own."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Final

from keystead.errors import HardcodedCredentialWarning
from keystead.integrations import tamper
from keystead.integrations.tamper_faces import KeyFace

CONFIGS: Final[Mapping[str, tuple[str, str]]] = {
    "AwsKmsProvider": ("keystead.providers.aws.provider", "AWSKMSConfig"),
    "GcpKmsProvider": ("keystead.providers.gcp.config", "GCPKMSConfig"),
    "AzureKeyVaultProvider": ("keystead.providers.azure.provider", "AzureKMSConfig"),
}


def build(spec: Mapping[str, Any], **options: Any) -> KeyFace:
    """Return a provider of a place that was told as data."""
    kind, given = spec["kind"], {**spec["options"], **options}
    if "config" in given:
        module, name = CONFIGS[kind]
        given["config"] = getattr(importlib.import_module(module), name)(**given["config"])
    made: KeyFace = getattr(tamper, kind)(*spec["arguments"], **given)
    return made


async def sign(provider: KeyFace, key_id: str, message: bytes) -> dict[str, str]:
    """Return signatures of a message, alone and as part of a batch."""
    signed = await provider.sign_named(key_id, message)
    batch = await provider.sign_batch(key_id, [message, b"another"])
    return {"signature": signed.signature.hex(), "key_id": signed.key_id, "item": batch[0].hex()}


async def answer(task: Mapping[str, Any]) -> Any:
    """Sign a message, or verify signatures: each a key id, a message and a signature."""
    async with build(task["place"]) as provider:
        if "sign" in task:
            return await sign(provider, task["key_id"], bytes.fromhex(task["sign"]))
        return [
            await provider.verify(key_id, bytes.fromhex(message), bytes.fromhex(signature))
            for key_id, message, signature in task["verify"]
        ]


if __name__ == "__main__":
    warnings.simplefilter("ignore", HardcodedCredentialWarning)
    print(json.dumps(asyncio.run(answer(json.load(sys.stdin)))))
