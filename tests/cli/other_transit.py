"""A real OpenBao, as an application used it that comes over or goes there."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

import pytest

from tests.cli.conftest import Cli
from tests.services.openbao import OpenBao

ROWS: Final = 40


class Old:
    """The other engine, as an application used it."""

    def __init__(self, server: OpenBao) -> None:
        self.server = server

    def encrypt(self, key: str, value: str, *, context: str = "", aad: str = "") -> str:
        """Return a ciphertext of the other engine."""
        body = {"plaintext": _coded(value), **_bound(context, aad)}
        return str(self.server.do("POST", f"{self.server.mount}/encrypt/{key}", body)["ciphertext"])

    def decrypt(self, key: str, text: str, *, context: str = "", aad: str = "") -> str:
        """Return what a ciphertext of the other engine holds."""
        body = {"ciphertext": text, **_bound(context, aad)}
        told = self.server.do("POST", f"{self.server.mount}/decrypt/{key}", body)
        return base64.b64decode(told["plaintext"]).decode()

    def texts(self, key: str, count: int = ROWS) -> list[str]:
        """Return ciphertexts of 1, 2, 3 and so on."""
        items = [{"plaintext": _coded(f"value {n}")} for n in range(1, count + 1)]
        told = self.server.do("POST", f"{self.server.mount}/encrypt/{key}", {"batch_input": items})
        return [each["ciphertext"] for each in told["batch_results"]]


def _coded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _bound(context: str, aad: str) -> dict[str, str]:
    return {name: _coded(value) for name, value in (("context", context), ("associated_data", aad)) if value}


@pytest.fixture
def old(own_openbao: OpenBao, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Old:
    """A server whose token is in the variable that commands look at."""
    monkeypatch.setenv("VAULT_TOKEN", own_openbao.token)
    return Old(own_openbao)


def opened(cli: Cli, key: str, text: str, *options: str) -> str:
    """Return what a ciphertext of the store holds."""
    return cli.ok("transit", "decrypt", key, *options, given=text).stdout
