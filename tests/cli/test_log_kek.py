"""Whether a log goes on under the KEK that it was sealed under."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from keystead.cli.log_kek import require_kek
from keystead.errors import ConfigurationError, ProviderConnectionError
from keystead.ledger import SealedFile
from keystead.ledger.format.session_source import KmsSessions
from keystead.testing import FakeKMS
from tests.cli.conftest import Cli, run_process
from tests.cli.logs import SEAL

STREAM = "example.org/app"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fake.log"


def sealed(path: Path, kms: FakeKMS | None, *payloads: bytes, stream: str = STREAM) -> None:
    with SealedFile(path, stream=stream, kms=kms, key_id=None if kms is None else "orders") as log:
        for payload in payloads or (b"1",):
            log.append(payload)


def another() -> FakeKMS:
    kms = FakeKMS()
    kms.create_key("orders")
    return kms


def opens(path: Path, kms: FakeKMS, stream: str = STREAM) -> bool:
    return require_kek(KmsSessions(kms, "orders"), str(path), stream)


@pytest.fixture
def other(folder: Path, cli: Cli) -> str:
    """The URI of another KEK, in a folder of its own."""
    (folder / "other").mkdir()
    cli.ok("init", "other")
    return "file:other/keystead.kek"


def test_another_kek_is_refused_before_anything_is_written(folder: Path, cli: Cli, other: str) -> None:
    run_process(folder, *SEAL, given=b"1\n")
    before = (folder / "app.log").read_bytes()
    done = run_process(folder, *SEAL, "--kms", other, given=b"2\n")
    assert done.returncode == 1
    assert b"app.log was sealed under another KEK than file:/" in done.stderr
    assert b"other/keystead.kek (same name, other key): give the one it was sealed with" in done.stderr
    assert (folder / "app.log").read_bytes() == before
    assert not (folder / "policy.json.new").exists()
    cli.ok("log", "verify", "app.log", "--policy", "policy.json", "--expect-closed")


def test_a_copy_of_the_kek_elsewhere_is_the_same_kek(folder: Path, cli: Cli) -> None:
    run_process(folder, *SEAL, given=b"1\n")
    shutil.copy("keystead.kek", "copy.kek")
    assert run_process(folder, *SEAL, "--kms", "file:copy.kek", given=b"2\n").returncode == 0
    assert not (folder / "policy.json.new").exists()
    cli.ok("log", "verify", "app.log", "--policy", "policy.json", "--expect-closed")


def test_a_new_log_under_another_kek_is_not_taken_for_that_of_the_policy(folder: Path, cli: Cli, other: str) -> None:
    run_process(folder, *SEAL, given=b"1\n")
    (folder / "app.log").unlink()
    done = run_process(folder, *SEAL, "--kms", other, given=b"2\n")
    assert done.returncode == 0
    assert b"policy.json is not for this log, and is left as it is" in done.stderr
    assert json.loads((folder / "policy.json.new").read_text())["keys"][0]["kms"].endswith("other/keystead.kek")
    cli.ok("log", "verify", "app.log", "--policy", "policy.json.new", "--expect-closed")


def test_the_last_session_counts_and_not_the_first(path: Path) -> None:
    first, second = FakeKMS(), FakeKMS()
    sealed(path, first)
    assert opens(path, first)
    # As the application may have logged: it is no session for that.
    sealed(path, second, b'{"n":9,"k":"session"}', b'{"k":"session"}')
    assert opens(path, second)
    with pytest.raises(ConfigurationError, match="another KEK than the one at hand"):
        opens(path, first)


def test_sessions_without_a_key_say_nothing_of_the_one_before_them(path: Path) -> None:
    kms = FakeKMS()
    sealed(path, kms)
    sealed(path, None)
    assert opens(path, kms)
    with pytest.raises(ConfigurationError, match="another KEK"):
        opens(path, another())


def test_the_last_file_that_ended_stands_for_a_log_without_one_that_is_written(path: Path) -> None:
    kms = FakeKMS()
    sealed(path, kms)
    path.rename(path.with_name("fake.log.000001"))
    assert opens(path, kms)
    with pytest.raises(ConfigurationError, match="another KEK"):
        opens(path, another())


def test_who_may_only_wrap_or_cannot_ask_is_not_held_up(path: Path) -> None:
    kms = FakeKMS()
    sealed(path, kms)
    kms.fail_next(1, ProviderConnectionError("the network is down"))
    assert not opens(path, kms)
    kms.deny("decrypt")
    assert not opens(path, kms)


def test_where_there_is_nothing_to_open_nothing_is_proved(path: Path) -> None:
    kms = FakeKMS()
    assert not opens(path, kms)
    sealed(path, None)
    assert not opens(path, kms)
    assert not opens(path, kms, "example.org/other")
    path.write_bytes(b"no log\n")
    assert not opens(path, kms)
    path.unlink()
    path.mkdir()
    assert not opens(path, kms)


def test_a_session_that_a_crash_left_half_is_none(path: Path) -> None:
    kms = FakeKMS()
    sealed(path, kms)
    with path.open("ab") as file:
        file.write(b'{"n":5,"t":1,"k":"session","d":{"id"\n')
    assert opens(path, kms)
