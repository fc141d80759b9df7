"""structlog, through a sealed log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from keystead.integrations.structlog import SealedLoggerFactory
from keystead.ledger import Verifier
from keystead.testing import FakeKMS
from tests.ledger.files import payloads

STREAM = "example.org/app"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_events_are_sealed_as_they_are_rendered(tmp_path: Path) -> None:
    kms, path = FakeKMS(), tmp_path / "app.log"
    factory = SealedLoggerFactory(path, stream=STREAM, kms=kms, key_id="audit")
    structlog.configure(processors=[structlog.processors.JSONRenderer()], logger_factory=factory)
    logger = structlog.get_logger("anything").bind(user="ada")
    logger.info("logged in", at="noon")
    logger.error("failed")
    policy = factory.log.trust_policy()
    factory.close()
    assert payloads(path) == [
        {"user": "ada", "at": "noon", "event": "logged in"},
        {"user": "ada", "event": "failed"},
    ]
    assert Verifier(policy, {"fake": kms}).verify(path, expect_closed=True).valid


def test_what_is_rendered_as_text_is_sealed_as_text(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    factory = SealedLoggerFactory(path, stream=STREAM, kms=FakeKMS(), key_id="audit")
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()], logger_factory=factory)
    structlog.get_logger().warning("careful", n=1)
    factory.log.flush()
    assert payloads(path) == ["n=1 event='careful'"]
    factory.close()


def test_bytes_are_taken_as_text_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    factory = SealedLoggerFactory(path, stream=STREAM, kms=FakeKMS(), key_id="audit")
    factory().msg(b'{"a":1}')
    factory().critical("and text")
    assert payloads(path) == [{"a": 1}, "and text"]
    assert "SealedLogger" in repr(factory())
    factory.close()
