"""The standard logging, through a sealed log."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ProviderConnectionError, SystemShutdownError
from keystead.integrations.logging import SealedHandler
from keystead.ledger import SealedFile, Verifier
from keystead.testing import FakeKMS
from tests.ledger.files import payloads

STREAM = "example.org/app"


@pytest.fixture
def kms() -> FakeKMS:
    return FakeKMS()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("tests.sealed")
    made.propagate = False
    made.setLevel(logging.DEBUG)
    yield made
    for handler in list(made.handlers):
        made.removeHandler(handler)
        handler.close()


def handler_for(path: Path, kms: FakeKMS, **options: Any) -> SealedHandler:
    return SealedHandler(path, stream=STREAM, kms=kms, key_id="audit", **options)


def test_records_of_logging_are_sealed(path: Path, kms: FakeKMS, logger: logging.Logger) -> None:
    handler = handler_for(path, kms)
    logger.addHandler(handler)
    logger.info("user %s logged in", "ada", extra={"user": "ada", "at": Path("/x")})
    try:
        raise ValueError("no such thing")
    except ValueError:
        logger.exception("it failed")
    policy = handler.log.trust_policy()
    handler.close()
    first, second = payloads(path)
    assert (first["message"], first["level"], first["logger"]) == ("user ada logged in", "INFO", "tests.sealed")
    assert first["extra"] == {"user": "ada", "at": "/x"}
    assert "ValueError: no such thing" in second["exception"]
    assert Verifier(policy, {"fake": kms}).verify(path, expect_closed=True).valid


def test_an_error_is_on_disk_when_the_call_returns(path: Path, kms: FakeKMS, logger: logging.Logger) -> None:
    handler = handler_for(path, kms, buffer_s=60.0)
    handler.open()
    logger.addHandler(handler)
    logger.info("may wait")
    assert payloads(path) == []
    logger.error("must not")
    assert [entry["message"] for entry in payloads(path)] == ["may wait", "must not"]


def test_a_formatter_of_ones_own_is_taken_as_it_is_or_as_text(path: Path, kms: FakeKMS, logger: logging.Logger) -> None:
    handler = handler_for(path, kms)
    logger.addHandler(handler)
    handler.setFormatter(logging.Formatter('{"m": "%(message)s"}'))
    logger.info("plain")
    logger.info('with "quotes"')
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.info("in\ntwo lines")
    handler.flush()
    assert payloads(path) == [{"m": "plain"}, '{"m": "with "quotes""}', "INFO: in\ntwo lines"]


def test_a_record_that_cannot_be_sealed_is_never_left_unsealed_in_silence(
    path: Path, kms: FakeKMS, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = handler_for(path, kms)
    logger.addHandler(handler)
    handler.log.close()
    logger.info("lost")
    assert "SystemShutdownError" in capsys.readouterr().err
    raising = SealedHandler(handler.log, raises=True)
    logger.addHandler(raising)
    with pytest.raises(SystemShutdownError):
        logger.info("lost")


def test_without_its_kms_there_is_no_handler(path: Path, kms: FakeKMS) -> None:
    kms.fail_always()
    handler = handler_for(path, kms)
    with pytest.raises(ProviderConnectionError):
        handler.open()
    handler.close()


def test_a_kms_that_logs_while_the_log_is_opened_does_not_wait_for_it(
    path: Path, kms: FakeKMS, logger: logging.Logger
) -> None:
    class Talking:
        provider_name = "fake"

        async def encrypt(self, *given: Any, **named: Any) -> Any:
            await asyncio.to_thread(logger.error, "asked by another thread")
            logger.warning("asked")
            return await kms.encrypt(*given, **named)

        async def decrypt(self, *given: Any, **named: Any) -> Any:
            return await kms.decrypt(*given, **named)

    handler = SealedHandler(path, stream=STREAM, kms=Talking(), key_id="audit")
    logger.addHandler(handler)
    logger.info("first")
    handler.flush()
    assert [entry["message"] for entry in payloads(path)] == ["asked by another thread", "asked", "first"]


class Asking:
    """A KMS that logs before it answers."""

    provider_name = "fake"

    def __init__(self, kms: FakeKMS, logger: logging.Logger) -> None:
        self._kms = kms
        self._logger = logger

    async def encrypt(self, *given: Any, **named: Any) -> Any:
        self._logger.warning("asked")
        return await self._kms.encrypt(*given, **named)

    async def decrypt(self, *given: Any, **named: Any) -> Any:
        return await self._kms.decrypt(*given, **named)


def test_what_another_thread_logs_while_early_records_are_sealed_is_sealed_too(
    path: Path, kms: FakeKMS, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = SealedFile.append
    others = [threading.Thread(target=logger.info, args=("between",))]

    def appended(log: SealedFile, record: bytes) -> None:
        for other in others[:]:
            others.clear()
            other.start()
            other.join()
        append(log, record)

    monkeypatch.setattr(SealedFile, "append", appended)
    handler = SealedHandler(path, stream=STREAM, kms=Asking(kms, logger), key_id="audit")
    logger.addHandler(handler)
    logger.info("first")
    handler.close()
    assert [entry["message"] for entry in payloads(path)] == ["asked", "between", "first"]


def test_a_record_that_came_too_late_to_wait_is_sealed_by_the_log_that_was_opened_meanwhile(
    path: Path, kms: FakeKMS, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_for(path, kms)
    logger.addHandler(handler)
    is_early = SealedHandler._is_early

    def late(made: SealedHandler, record: logging.LogRecord, text: str) -> bool:
        found = is_early(made, record, text)
        monkeypatch.setattr(SealedHandler, "_is_early", is_early)
        held = made._opening
        held.acquire()  # as another thread does that opens it
        return found

    monkeypatch.setattr(SealedHandler, "_is_early", late)
    logger.info("late")
    handler._opening.release()
    handler.open()
    handler.flush()
    assert [entry["message"] for entry in payloads(path)] == ["late"]


def test_records_that_waited_for_a_log_that_was_never_opened_are_told_of(
    path: Path, kms: FakeKMS, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    kms.fail_always()
    handler = SealedHandler(path, stream=STREAM, kms=Asking(kms, logger), key_id="audit")
    logger.addHandler(handler)
    logger.info("first")
    assert "'asked'" not in capsys.readouterr().err
    handler.close()
    told = capsys.readouterr().err
    assert told.count("Error: the log could not be opened") == told.count("Message: 'asked'") == 1
    handler.close()
    assert capsys.readouterr().err == ""


def test_what_is_logged_while_a_log_that_never_opened_is_closed_is_told_of(
    path: Path,
    kms: FakeKMS,
    logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kms.fail_always()
    handler = handler_for(path, kms)
    logger.addHandler(handler)
    taken = handler._taken

    def overtaken() -> list[tuple[logging.LogRecord, str]]:
        found = taken()
        monkeypatch.undo()
        logger.info("late")
        return found

    monkeypatch.setattr(handler, "_taken", overtaken)
    handler.close()
    assert "Message: 'late'" in capsys.readouterr().err


def test_one_early_record_that_cannot_be_sealed_does_not_take_the_others_with_it(
    path: Path, kms: FakeKMS, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    class Long(Asking):
        async def encrypt(self, *given: Any, **named: Any) -> Any:
            self._logger.warning("long %s", "x" * (4 << 20))
            return await super().encrypt(*given, **named)

    handler = SealedHandler(path, stream=STREAM, kms=Long(kms, logger), key_id="audit")
    logger.addHandler(handler)
    logger.info("first")
    handler.close()
    assert [entry["message"] for entry in payloads(path)] == ["asked", "first"]
    assert "Message: 'long %s'" in capsys.readouterr().err


def test_an_early_error_is_on_disk_once_the_log_is_open(path: Path, kms: FakeKMS, logger: logging.Logger) -> None:
    class Failing(Asking):
        async def encrypt(self, *given: Any, **named: Any) -> Any:
            self._logger.error("slow")
            return await self._kms.encrypt(*given, **named)

    handler = SealedHandler(path, stream=STREAM, kms=Failing(kms, logger), key_id="audit", buffer_s=60.0)
    logger.addHandler(handler)
    handler.open()
    assert [entry["message"] for entry in payloads(path)] == ["slow"]


def test_a_child_waits_for_no_opening_of_its_parents(path: Path, kms: FakeKMS, logger: logging.Logger) -> None:
    handler = handler_for(path, kms)
    logger.addHandler(handler)
    with handler._opening:
        logger.info("of the parent")
        child = os.fork()
        if not child:
            try:
                logger.info("of the child")
                handler.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert [entry["message"] for entry in payloads(path)] == ["of the child"]
    handler.open()
    handler.flush()
    assert [entry["message"] for entry in payloads(path)] == ["of the child", "of the parent"]


def test_a_kms_that_logs_while_a_child_opens_its_log_does_not_wait_for_it(
    path: Path, kms: FakeKMS, logger: logging.Logger
) -> None:
    class Talking(Asking):
        async def encrypt(self, *given: Any, **named: Any) -> Any:
            await asyncio.to_thread(logger.error, "asked by another thread")
            return await super().encrypt(*given, **named)

    log = SealedFile(path, stream=STREAM, kms=Talking(kms, logger), key_id="audit")
    logger.addHandler(SealedHandler(log))
    child = os.fork()
    if not child:
        signal.alarm(60)  # ends a child that waits for itself
        try:
            logger.info("first")
            log.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    log.close()
    (own,) = path.parent.glob("app-*.log")
    assert [entry["message"] for entry in payloads(own)] == ["asked by another thread", "asked", "first"]


def test_the_logs_own_troubles_are_not_written_into_it(path: Path, kms: FakeKMS) -> None:
    handler = handler_for(path, kms)
    handler.open()
    own = logging.getLogger("keystead.ledger")
    own.addHandler(handler)
    try:
        own.warning("the upkeep of a log failed")
    finally:
        own.removeHandler(handler)
        handler.close()
    assert payloads(path) == []


def test_a_log_that_is_open_already_is_left_open(path: Path, kms: FakeKMS, logger: logging.Logger) -> None:
    with SealedFile(path, stream=STREAM, kms=kms, key_id="audit") as log:
        handler = SealedHandler(log)
        logger.addHandler(handler)
        logger.warning("one")
        handler.close()
        log.append(b"2")
    assert len(payloads(path)) == 2


def test_it_is_set_up_by_a_dictionary(path: Path, tmp_path: Path) -> None:
    from keystead.providers.local.kek_file import create_kek_file

    create_kek_file(tmp_path / "kek")
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "sealed": {
                    "class": "keystead.integrations.logging.SealedHandler",
                    "log": str(path),
                    "stream": STREAM,
                    "kms": f"file:{tmp_path / 'kek'}",
                }
            },
            "loggers": {"tests.configured": {"handlers": ["sealed"], "level": "INFO", "propagate": False}},
        }
    )
    logger = logging.getLogger("tests.configured")
    (handler,) = logger.handlers
    logger.info("configured")
    logger.removeHandler(handler)
    handler.close()
    assert payloads(path)[0]["message"] == "configured"
