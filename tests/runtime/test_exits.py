"""What is done at the interpreter's exit, and in which order."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading
from keystead.providers.workers import Workers
from keystead.runtime import exits
from keystead.runtime.loop import background_loop

workers = Workers("test")

class Part:
    def __init__(self, name):
        self.name = name
    def step(self):
        print(self.name, flush=True)
    def work(self):
        # As a log does that asks a KMS to sign its end.
        print(background_loop.run(workers.run(lambda: "wrote in " + threading.current_thread().name)), flush=True)
    async def close(self):
        print("closed:", await workers.run(lambda: "threads are there"), flush=True)
    def fail(self):
        raise OSError("no space left")

{body}
"""


def run(body: str) -> tuple[int, list[str], str]:
    program = PROGRAM.format(body=body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_what_writes_at_the_exit_still_has_the_loop_and_the_threads_it_needs() -> None:
    status, told, errors = run(
        "part, ended = Part('a'), Part('ended')\n"
        "exits.to_end(ended.step)\n"
        "exits.to_write(part.work)\n"
        "background_loop.at_stop(part.close)\n"
        "background_loop.run(workers.run(lambda: None))  # the threads are of later than what writes\n"
    )
    assert (status, errors) == (0, "")
    assert told == ["wrote in keystead-test", "closed: threads are there", "ended"]


def test_one_that_fails_is_told_and_holds_up_nobody() -> None:
    status, told, errors = run(
        "failing, other, ended = Part('a'), Part('other'), Part('ended')\n"
        "exits.to_end(ended.step)\n"
        "exits.to_write(failing.fail)\n"
        "exits.to_write(other.step)\n"
    )
    assert (status, told) == (0, ["other", "ended"])
    assert errors.endswith("OSError: no space left\n")


def test_what_is_gone_is_not_called() -> None:
    status, told, errors = run("part = Part('gone')\nexits.to_write(part.step)\ndel part\n")
    assert (status, told, errors) == (0, [], "")
