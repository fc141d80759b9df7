"""What ``import keystead`` gives, and what it does not load."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import keystead
from keystead import errors, model

DOCUMENTED = {
    # FraiseQL's KMS
    "KeyManager",
    "LocalKMSProvider",
    "LocalKMSConfig",
    "KeyReference",
    "EncryptedData",
    "DataKeyPair",
    "RotationPolicy",
    "KeyPurpose",
    "KeyState",
    "KMSError",
    "EncryptionError",
    "DecryptionError",
    "KeyNotFoundError",
    "KeyRotationError",
    "ProviderConnectionError",
    # the Go KMS
    "CryptoService",
    "RootKeyGenerator",
    "EncryptedField",
    "KMSStatus",
    "KeyStatistics",
    "DataKeyInfo",
    "NoActiveKeyError",
    "KeyExpiredError",
    "InvalidSeedError",
    "InvalidSaltError",
    "InvalidIterationsError",
    "InvalidKeyLengthError",
    "InvalidAlgorithmError",
    "InvalidKeyVersionError",
    "InvalidCiphertextError",
    "KeyEncryptionFailError",
    "KeyDecryptionFailError",
    "KeyGenerationFailError",
    "NotInitializedError",
    "AlreadyInitializedError",
    "SystemShutdownError",
    "StorageOperationError",
    "CleanupFailedError",
}
HEAVY = ["sqlalchemy", "alembic", "aiosqlite", "psycopg", "cryptography", "pydantic", "opentelemetry", "yaml", "typer"]


@pytest.mark.parametrize("name", sorted(keystead.__all__))
def test_every_name_of_all_is_there(name: str) -> None:
    assert getattr(keystead, name) is not None


def test_all_holds_every_documented_name() -> None:
    assert set(keystead.__all__) >= DOCUMENTED


def test_all_holds_every_error() -> None:
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.KMSError)}
    assert set(keystead.__all__) >= kinds


def test_all_holds_every_model_that_the_manager_answers_with() -> None:
    own = set(model.__all__) & set(keystead.__all__)
    assert own >= {"DataKeyInfo", "DataKeyState", "KMSStatus", "SecretBytes"}


def test_a_name_that_is_not_ours_is_missed_by_name() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = keystead.no_such_thing  # type: ignore[attr-defined]


def test_a_type_checker_sees_the_same_names() -> None:
    tree = ast.parse(Path(inspect.getfile(keystead)).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert {*seen, "__version__"} == set(keystead.__all__)
    for name, home in seen.items():
        assert getattr(keystead, name) is getattr(importlib.import_module(str(home)), name), name


def test_dir_lists_what_all_lists() -> None:
    assert dir(keystead) == sorted(keystead.__all__)


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = f"import keystead, sys; print([name for name in {HEAVY} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "[]\n"


@pytest.mark.parametrize(
    "program",
    [
        "from keystead import Field, KeyManager; import keystead.blocking, keystead.fields, sys",
        "from keystead.cli.main import build_app; import sys; build_app()",
    ],
    ids=["library", "command line"],
)
def test_nothing_loads_a_database_before_it_is_used(program: str) -> None:
    heavy = ["sqlalchemy", "alembic", "aiosqlite", "psycopg"]
    program += f"; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "[]\n"


def test_models_and_errors_load_nothing_heavy_either() -> None:
    names = ["KMSError", "EncryptedData", "KeyReference", "RotationPolicy"]
    program = f"from keystead import {', '.join(names)}; import sys; print([n for n in {HEAVY} if n in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "[]\n"


@pytest.mark.parametrize("module", ["keystead.blocking", "keystead.testing"])
def test_the_packages_beside_it_declare_their_names(module: str) -> None:
    room = importlib.import_module(module)
    assert all(getattr(room, name) for name in room.__all__)
