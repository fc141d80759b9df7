"""A hundred thousand records through fapilog with redactors on, through ``logging``, and through structlog."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from keystead.ledger import TrustPolicy, Verifier
from keystead.ledger.format.records import parse_line
from keystead.ledger.reading.files import LogFiles
from keystead.testing import FakeKMS
from soak.figures import Figure, Figures, Setting
from soak.harness import ChildFailedError, fork

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAM: Final = ROOT / "tests" / "integrations" / "fapilog" / "program.py"
VARIABLE: Final = "FAPILOG_TAMPER_KEY"
KEY: Final = bytes(range(32)).hex()
STREAM: Final = "example.org/soak"
SECRETS: Final = (b"hunter2", b"4111 1111")
TIMEOUT_S: Final = 1800


class Fapilog:
    """See the module."""

    name = "fapilog"
    claim = (
        "Records that an application writes through fapilog, logging or structlog are all in the log, in their order, "
        "and verify; what a redactor takes away is nowhere."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Run each application in a process of its own."""
        count = setting.choose(short=2_000, full=100_000)
        figures = Figures()
        for name, application in APPLICATIONS.items():
            folder = setting.folder / name.replace(" ", "-")
            folder.mkdir()
            figures.rows += fork(application, name, folder, count).result(TIMEOUT_S)
        return figures.rows


def _settings(name: str, folder: Path, count: int) -> list[Figure]:
    """Take fapilog's settings, several enrichers and three redactors."""
    import fapilog
    from fapilog import Settings

    os.environ[VARIABLE] = KEY
    fields: dict[str, Any] = {
        "core": {
            "sinks": ["sealed"],
            "enrichers": ["runtime_info", "integrity", "context_vars"],
            "redactors": ["url_credentials", "field_mask", "regex_mask"],
            "drop_on_full": False,
            "backpressure_wait_ms": 60_000,
            "max_queue_size": 10_000,
            "signal_handler_enabled": False,
        },
        "plugins": {"allow_external": True},
        "redactor_config": {"field_mask": {"fields_to_mask": ["data.card"]}},
        "sink_config": {"sealed": {"inner_config": {"directory": str(folder), "max_bytes": "4 MB"}}},
    }
    logger = fapilog.get_logger("soak", settings=Settings(**fields), reuse=False)
    return _through_fapilog(name, folder, count, logger)


def _builder(name: str, folder: Path, count: int) -> list[Figure]:
    """Take fapilog's builder, which is told of sinks from elsewhere by the environment, and its redaction."""
    from fapilog import LoggerBuilder

    inner = {"directory": str(folder), "max_bytes": "4 MB"}
    os.environ |= {
        VARIABLE: KEY,
        "FAPILOG_CORE__SINKS": '["sealed"]',
        "FAPILOG_SINK_CONFIG__SEALED__INNER_CONFIG": json.dumps(inner),
    }
    builder = LoggerBuilder().with_name("soak").with_level("INFO").with_plugins(allow_external=True).reuse(False)
    builder.with_enrichers("runtime_info", "integrity").with_signal_handlers(enabled=False)
    builder.with_redaction(fields=["card"], patterns=["(?i).*password.*"], url_credentials=True)
    builder.with_queue_size(10_000).with_backpressure(wait_ms=60_000, drop_on_full=False)
    return _through_fapilog(name, folder, count, builder.build())


def _through_fapilog(name: str, folder: Path, count: int, logger: Any) -> list[Figure]:
    from keystead.integrations.fapilog import require_sealed

    policy = require_sealed(logger).trust_policy()

    def write(number: int) -> None:
        logger.info("paid", number=number, card="4111 1111", page="https://ada:hunter2@example.org/x")

    seconds = _timed(write, count)
    drained = asyncio.run(logger.stop_and_drain())
    found = (record["log"]["data"]["number"] for record in _records(folder / "fapilog.jsonl"))
    rows = _checked(name, folder / "fapilog.jsonl", Verifier(policy), count, found)
    rows.equal(name, "records that fapilog says were dropped", drained.dropped, 0)
    rows.tell(name, "records a second, as the application sees it", count / seconds)
    return rows.rows


def _undrained(name: str, folder: Path, count: int) -> list[Figure]:
    """End the process with records in fapilog's queue, which nobody drains."""
    environment = os.environ | {VARIABLE: KEY, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, str(PROGRAM), str(folder), str(count), "exit", json.dumps({"enrichers": ["integrity"]})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    os.environ[VARIABLE] = KEY
    if done.returncode:
        raise ChildFailedError(done.stderr)
    found = (record["log"]["data"]["number"] for record in _records(folder / "fapilog.jsonl"))
    policy = _policy_of_key("fapilog/fapilog")
    rows = _checked(name, folder / "fapilog.jsonl", Verifier(policy), count, found)
    rows.equal(name, "what it said on stderr", done.stderr.strip(), "")
    return rows.rows


def _logging(name: str, folder: Path, count: int) -> list[Figure]:
    """Take the handler of ``logging``."""
    from keystead.integrations.logging import SealedHandler

    kms = FakeKMS()
    handler = SealedHandler(folder / "app.log", stream=STREAM, kms=kms, key_id="audit", max_bytes=4 << 20)
    logger = logging.Logger("soak")  # noqa: LOG001  # one that the runner, which turns logging off, does not know
    logger.manager = logging.Manager(logging.RootLogger(logging.NOTSET))
    logger.addHandler(handler)
    policy = handler.log.trust_policy()
    seconds = _timed(lambda number: logger.info("paid", extra={"number": number}), count)
    handler.close()
    found = (record["extra"]["number"] for record in _records(folder / "app.log"))
    rows = _checked(name, folder / "app.log", Verifier(policy, {"fake": kms}), count, found)
    rows.tell(name, "records a second, as the application sees it", count / seconds)
    return rows.rows


def _structlog(name: str, folder: Path, count: int) -> list[Figure]:
    """Take structlog's loggers."""
    import structlog

    from keystead.integrations.structlog import SealedLoggerFactory

    kms = FakeKMS()
    factory = SealedLoggerFactory(folder / "app.log", stream=STREAM, kms=kms, key_id="audit", max_bytes=4 << 20)
    structlog.configure(processors=[structlog.processors.JSONRenderer()], logger_factory=factory)
    policy, logger = factory.log.trust_policy(), structlog.get_logger().bind(user="ada")
    seconds = _timed(lambda number: logger.info("paid", number=number), count)
    factory.close()
    found = (record["number"] for record in _records(folder / "app.log"))
    rows = _checked(name, folder / "app.log", Verifier(policy, {"fake": kms}), count, found)
    rows.tell(name, "records a second, as the application sees it", count / seconds)
    return rows.rows


APPLICATIONS: Final[dict[str, Callable[[str, Path, int], list[Figure]]]] = {
    "fapilog, settings": _settings,
    "fapilog, builder": _builder,
    "fapilog, not drained": _undrained,
    "logging": _logging,
    "structlog": _structlog,
}


def _timed(write: Callable[[int], object], count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        write(number)
    return time.perf_counter() - started


def _checked(name: str, path: Path, verifier: Verifier, count: int, found: Iterator[int]) -> Figures:
    rows = Figures()
    with verifier:
        report = verifier.verify(path, expect_closed=True)
    numbers = list(found)
    content = b"".join(each.read_bytes() for each in _files(path))
    rows.equal(name, "records of the application in the log", len(numbers), count)
    rows.equal(name, "records out of their order, or twice", sum(a != b for a, b in enumerate(numbers)), 0)
    rows.equal(name, "findings of the verifier", report.findings, 0)
    rows.equal(name, "whether the log is closed", report.closed, True)
    rows.equal(name, "secrets in the log", sum(secret in content for secret in SECRETS), 0)
    rows.tell(name, "files", report.files)
    return rows


def _files(path: Path) -> list[Path]:
    return [*LogFiles(path).ended().values(), path]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Give what the application logged, as it stands in the lines."""
    for file in _files(path):
        for line in file.read_bytes().splitlines():
            record = parse_line(line)
            if record.kind is None:
                yield json.loads(record.payload)


def _policy_of_key(stream: str) -> TrustPolicy:
    from tests.integrations.fapilog.apps import policy_of_key

    return policy_of_key(stream)
