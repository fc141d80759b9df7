"""The Transit engine of another server, as applications used it."""

from __future__ import annotations

import base64

from tests.services.openbao import OpenBao

ROWS = 40


class Old:
    """The other engine, as an application used it."""

    def __init__(self, server: OpenBao) -> None:
        self.server = server

    def encrypt(self, key: str, value: str, *, context: str = "", aad: str = "") -> str:
        """Return a ciphertext of the other engine."""
        body = {"plaintext": coded(value), **_bound(context, aad)}
        return str(self.server.do("POST", f"{self.server.mount}/encrypt/{key}", body)["ciphertext"])

    def decrypt(self, key: str, text: str, *, context: str = "", aad: str = "") -> str:
        """Return what a ciphertext of the other engine holds."""
        body = {"ciphertext": text, **_bound(context, aad)}
        told = self.server.do("POST", f"{self.server.mount}/decrypt/{key}", body)
        return base64.b64decode(told["plaintext"]).decode()

    def texts(self, key: str, count: int = ROWS) -> list[str]:
        """Return ciphertexts of 1, 2, 3 and so on."""
        items = [{"plaintext": coded(f"value {n}")} for n in range(1, count + 1)]
        told = self.server.do("POST", f"{self.server.mount}/encrypt/{key}", {"batch_input": items})
        return [each["ciphertext"] for each in told["batch_results"]]


def coded(value: str) -> str:
    """Return a text as requests have it."""
    return base64.b64encode(value.encode()).decode()


def _bound(context: str, aad: str) -> dict[str, str]:
    return {name: coded(value) for name, value in (("context", context), ("associated_data", aad)) if value}
