"""A re-encryption is asked for where its table is not reached, and done by a command that waits where it is."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.cli.conftest import Cli, start
from tests.cli.serving import serving
from tests.cli.test_reencrypt import people
from tests.fields.application import Application
from tests.server.console.visitors import form_of

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


def test_a_worker_elsewhere_does_what_rest_and_the_console_ask_for_and_ends_by_sigterm(
    cli: Cli, people: Application, folder: Path
) -> None:
    worker = start(["reencrypt", people.url, "people.email", "--wait", "--poll", "100ms"], folder)
    try:
        _until(worker, lambda: bool(cli.json("field", "list")["fields"]) and _listens(cli))
        before = people.rows("SELECT id, email FROM people")
        with serving(folder, "--dev", "--no-example") as url, httpx.Client(base_url=url, timeout=60) as http:

            def last() -> dict[str, Any]:
                (field,) = http.get("/v1/fields").raise_for_status().json()["items"]
                assert field["waitingWorkers"] == 1
                return dict(field["wishes"][0])

            asked = {"field": "people.email", "kind": "plan"}
            http.post("/v1/reencryption-wishes", json=asked).raise_for_status()
            _until(worker, lambda: last()["state"] == "done")
            assert (last()["plan"]["rows"], last()["plan"]["sampleChanges"], last()["askedBy"]) == (12, 12, "dev")
            assert people.rows("SELECT id, email FROM people") == before
            at = "/console/jobs/fields/people.email/start"
            preview = http.get(at)
            assert "12 of the first 12 have to be written" in preview.text
            given = {"form": form_of(preview)}
            assert http.post(at, data=given, headers={"Origin": url}).status_code == 303
            _until(worker, lambda: last()["kind"] == "run" and last()["state"] == "done")
            job = last()["reencryptionId"]
            assert f"/console/jobs/reencryptions/{job}" in http.get("/console/jobs/new-reencryption").text
            assert http.get(f"/v1/reencryptions/{job}").json()["rewritten"] == 12
        assert [email for _, email in before] != [email for _, email in people.rows("SELECT id, email FROM people")]
        assert cli.json("reencrypt", people.url, "people.email")["skipped"] == 12
        worker.send_signal(signal.SIGTERM)
        answer, told = worker.communicate(timeout=60)
        assert b"2 wishes done" in answer
        assert worker.returncode == 0
        assert f"re-encryption {job}".encode() in told
        assert not _listens(cli)
    finally:
        worker.kill()
        worker.communicate()


def _until(worker: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert worker.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)


def _listens(cli: Cli) -> bool:
    listeners = cli.json("reencryption", "wishes", "people.email")["listeners"]
    return listeners is not None and listeners["waiting"] > 0


def test_what_a_worker_was_at_when_it_was_killed_is_gone_on_with_by_the_next(
    cli: Cli, people: Application, folder: Path
) -> None:
    register(cli, people)
    cli.ok("reencryption", "ask", "people.email")
    slowly = ["--batch-rows", "1", "--rate", "0.5", "--poll", "100ms"]
    worker = start(["reencrypt", people.url, "people.email", "--wait", *slowly], folder)
    try:
        _until(worker, lambda: _rewritten(cli) > 0)
        worker.kill()
    finally:
        worker.communicate()
    (wish,) = cli.json("reencryption", "wishes", "people.email")["wishes"]
    assert (wish["state"], wish["job"]) == ("taken", cli.json("reencryption", "list")["jobs"][0]["id"])
    assert "a worker is at it" in cli.fails(1, "reencryption", "withdraw", wish["id"])
    # A minute without a word from it.
    store = Application(f"sqlite:///{folder}/keys.db")
    store.run("UPDATE reencryption_wishes SET until_ms = 1", "UPDATE reencryption_chunks SET until_ms = 1")
    done = _rewritten(cli)
    assert 0 < done < 12
    assert cli.json("reencrypt", people.url, "people.email", "--wait", "--once") == {"done": 1}
    (ended,) = cli.json("reencryption", "wishes", "people.email")["wishes"]
    assert (ended["state"], ended["job"]) == ("done", wish["job"])
    assert _rewritten(cli) == 12
    assert cli.json("reencrypt", people.url, "people.email")["skipped"] == 12


def _rewritten(cli: Cli) -> int:
    jobs = cli.json("reencryption", "list")["jobs"]
    return int(cli.json("reencryption", "show", jobs[0]["id"])["totals"]["rewritten"]) if jobs else 0
