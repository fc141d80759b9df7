"""TLS takes a certificate and its key, both readable and of each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from keystead.config.service import load_service
from keystead.errors import ConfigurationError
from keystead.server.tls import tls_options


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with ``cert.pem`` and ``key.pem``, and others that are of no use."""
    pair, other = trustme.CA().issue_cert("localhost"), trustme.CA().issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    key = load_pem_private_key(pair.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary"))
    (tmp_path / "encrypted.pem").write_bytes(encrypted)
    (tmp_path / "text.pem").write_text("canary")
    return tmp_path


def options(files: Path, cert: str | None, key: str | None) -> dict[str, str]:
    given = {
        "KEYSTEAD_SERVER_TLS_CERT": cert and str(files / cert),
        "KEYSTEAD_SERVER_TLS_KEY": key and str(files / key),
    }
    return tls_options(load_service(environ={name: value for name, value in given.items() if value}))


def test_without_either_it_speaks_plain_http(files: Path) -> None:
    assert options(files, None, None) == {}


def test_a_pair_is_what_the_server_is_given(files: Path) -> None:
    assert options(files, "cert.pem", "key.pem") == {
        "ssl_certfile": str(files / "cert.pem"),
        "ssl_keyfile": str(files / "key.pem"),
    }


def test_files_count_from_the_settings_files_folder(files: Path) -> None:
    (files / "keystead.yaml").write_text("server: {tls_cert: cert.pem, tls_key: key.pem}")
    loaded = load_service(files / "keystead.yaml", environ={})
    assert tls_options(loaded)["ssl_certfile"] == str(files / "cert.pem")


@pytest.mark.parametrize(
    ("cert", "key", "told"),
    [
        ("cert.pem", None, "set server.tls_key as well"),
        (None, "key.pem", "set server.tls_cert as well"),
        ("absent.pem", "key.pem", "server.tls_cert: .*absent.pem cannot be read: No such file"),
        ("cert.pem", ".", "server.tls_key: .* cannot be read: Is a directory"),
        ("text.pem", "key.pem", "no certificate in PEM and its private key"),
        ("cert.pem", "text.pem", "no certificate in PEM and its private key"),
        ("cert.pem", "other.pem", "no certificate in PEM and its private key"),
        ("cert.pem", "encrypted.pem", "is encrypted, and nobody is asked"),
    ],
)
def test_what_cannot_work_is_refused_with_the_cure(files: Path, cert: str | None, key: str | None, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        options(files, cert, key)
    assert "canary" not in str(refused.value)
