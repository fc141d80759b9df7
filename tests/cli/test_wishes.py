"""A re-encryption is asked for where its table is not reached, and done by a command that waits where it is."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.cli.conftest import Cli, start
from tests.cli.test_reencrypt import people
from tests.fields.application import Application

__all__ = ["people"]


def register(cli: Cli, people: Application) -> None:
    """Have the field registered, as the first wait does."""
    assert cli.json("reencrypt", people.url, "people.email", "--wait", "--once") == {"done": 0}


def test_nobody_listens_and_the_answer_says_by_which_command_one_does(cli: Cli, people: Application) -> None:
    register(cli, people)
    asked = cli.ok("reencryption", "ask", "people.email", "--plan")
    assert "no worker waits for it" in asked.stdout
    assert f"keystead reencrypt {people.url} people.email --wait" in asked.stdout
    assert "was asked for already" in cli.fails(1, "reencryption", "ask", "people.email")
    (wish,) = cli.json("reencryption", "wishes", "people.email")["wishes"]
    assert (wish["kind"], wish["state"]) == ("plan", "open")
    assert wish["asked_by"].startswith("account ")
    assert cli.json("reencryption", "withdraw", wish["id"])["state"] == "cancelled"
    assert "cancelled already" in cli.fails(1, "reencryption", "withdraw", wish["id"])
    assert cli.json("reencrypt", people.url, "people.email", "--wait", "--once") == {"done": 0}
    assert "keystead field list" in cli.fails(1, "reencryption", "ask", "people.\x1b[2J")
    assert "leave out" in cli.fails(2, "reencrypt", people.url, "people.email", "--wait", "--plan")


def test_a_plan_that_was_asked_for_is_that_of_the_command(cli: Cli, people: Application) -> None:
    register(cli, people)
    cli.ok("reencryption", "ask", "people.email", "--plan")
    assert "1 wish done" in cli.ok("reencrypt", people.url, "people.email", "--wait", "--once").stdout
    found = cli.json("reencryption", "wishes", "people.email")["plan"]["kept"]["plan"]
    mine = cli.json("reencrypt", people.url, "people.email", "--plan")
    assert {**found, "seconds": 0} == {**mine, "seconds": 0}
    assert "default v1" in cli.ok("reencryption", "wishes", "people.email").stdout


def test_a_worker_that_waits_does_it_and_ends_by_sigterm(cli: Cli, people: Application, folder: Path) -> None:
    worker = start(["reencrypt", people.url, "people.email", "--wait", "--poll", "100ms"], folder)
    try:
        until = time.monotonic() + 60
        while not cli.json("field", "list")["fields"] or not _listens(cli):
            assert worker.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        assert "a worker waits for wishes of it" in cli.ok("reencryption", "ask", "people.email").stdout
        while cli.json("reencryption", "wishes", "people.email")["wishes"][0]["state"] != "done":
            assert worker.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        (job,) = cli.json("reencryption", "list")["jobs"]
        (wish,) = cli.json("reencryption", "wishes", "people.email")["wishes"]
        assert (job["state"], wish["job"]) == ("done", job["id"])
        worker.send_signal(signal.SIGTERM)
        _, told = worker.communicate(timeout=60)
        assert worker.returncode == 0
        assert f"re-encryption {job['id']}".encode() in told
        assert not _listens(cli)
    finally:
        worker.kill()
        worker.communicate()


def _listens(cli: Cli) -> bool:
    listeners = cli.json("reencryption", "wishes", "people.email")["listeners"]
    return listeners is not None and listeners["waiting"] > 0
