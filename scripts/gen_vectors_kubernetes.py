"""Vectors of the Kubernetes plugin, computed from primitives; see ``gen_vectors``."""

from __future__ import annotations

from collections.abc import Callable

from scripts.gen_vectors_kms import Case

KEY_ID = 6_711_000_000_000_000_017
STORE = "0123456789abcdef0123456789abcdef"


def kubernetes_file(envelope: Callable[..., Case]) -> Case:
    """Return ``kubernetes-v1.json``."""
    tests = []
    for comment, keyring, version, key_id, plaintext in [
        ("a seed", "cluster", 1, 11, bytes(range(32))),
        ("of a later version", "cluster", 12, KEY_ID, bytes(range(32))),
        ("another key", "team-a.prod_2", 3, 2**63 - 1, b"x"),
    ]:
        pairs = [["keystead.use", "kubernetes-kms-v2"]]
        case = envelope(f"kubernetes, {comment}", 0x01, plaintext, pairs, key_id=key_id)
        tests.append(
            {
                **case,
                "keyring": keyring,
                "version": version,
                "key_id": f"keystead/1/{keyring}/{version}/{key_id:016x}",
                "annotations": {"envelope.keystead.org": b"1".hex(), "store.keystead.org": STORE.encode().hex()},
            }
        )
    return {"spec": "docs/spec/kubernetes-v1.md", "store_id": STORE, "tests": tests}
