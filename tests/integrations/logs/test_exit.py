"""A process that ends without having closed its log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keystead.ledger import TrustPolicy, Verifier
from keystead.providers.local.kek_file import create_kek_file
from tests.ledger.files import payloads

LOGGING = """
handler = SealedHandler(path, stream=STREAM, kms=kms)
{opens}
logging.getLogger().addHandler(handler)
logging.warning("first")
logging.warning("last")
handler.log.trust_policy().save(policy)
"""
STRUCTLOG = """
factory = SealedLoggerFactory(path, stream=STREAM, kms=kms)
structlog.configure(processors=[structlog.processors.JSONRenderer()], logger_factory=factory)
factory.log.trust_policy().save(policy)
structlog.get_logger().warning("event", message="first")
structlog.get_logger().warning("event", message="last")
"""
ALONE = """
log = SealedFile(path, stream=STREAM, kms=kms)
log.trust_policy().save(policy)
log.append(b'{"message":"first"}')
log.append(b'{"message":"last"}')
"""
HEAD = """
import logging, sys
import structlog
from keystead.integrations.logging import SealedHandler
from keystead.integrations.structlog import SealedLoggerFactory
from keystead.ledger import SealedFile

STREAM = "example.org/app"
path, policy, kms = sys.argv[1:]
"""
PROGRAMS = {
    "logging": LOGGING.format(opens="handler.open()"),
    "logging, opened by the first record": LOGGING.format(opens=""),
    "structlog": STRUCTLOG,
    "a file alone": ALONE,
}


def ended(program: str, tmp_path: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", HEAD + program, str(tmp_path / "app.log"), str(tmp_path / "policy.json")]
    create_kek_file(tmp_path / "kek")
    command.append(f"local:{tmp_path / 'kek'}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr


def messages(tmp_path: Path) -> list[str]:
    return [entry["message"] for entry in payloads(tmp_path / "app.log")]


@pytest.mark.parametrize("how", PROGRAMS)
def test_every_record_is_in_a_closed_log(how: str, tmp_path: Path) -> None:
    assert ended(PROGRAMS[how], tmp_path) == (0, "")
    assert messages(tmp_path) == ["first", "last"]
    policy = TrustPolicy.load(tmp_path / "policy.json")
    assert Verifier(policy).verify(tmp_path / "app.log", expect_closed=True).valid


def test_a_log_that_cannot_be_closed_says_so(tmp_path: Path) -> None:
    program = f"""
{ALONE}
log.flush()
def fail():
    raise StoreFullError("the disk is full")
log._log.close = fail
"""
    status, errors = ended("from keystead.errors import StoreFullError\n" + program, tmp_path)
    assert (status, messages(tmp_path)) == (0, ["first", "last"])
    assert errors == "log app.log was not closed at the exit, and may lack its end: the disk is full\n"
