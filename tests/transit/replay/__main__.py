"""Play scenarios on a server that runs already: ``python -m tests.transit.replay [--keystead] URL TOKEN SCENARIO...``.

The server has to be fresh for each scenario, so name several only where they do not get in each other's way.
"""

from __future__ import annotations

import argparse
import sys

from tests.transit.deviations import OF_KEYSTEAD
from tests.transit.replay.deviations import NOTHING
from tests.transit.replay.player import play
from tests.transit.replay.recordings import names, scenario
from tests.transit.replay.wire import Answer, Request
from tests.transit.targets.keystead import KeysteadTarget


class Running:
    """A server that somebody else administers."""

    def __init__(self, url: str, root_token: str) -> None:
        self.url, self.root_token = url, root_token

    def translated(self, request: Request) -> Request | Answer:
        """Translate nothing."""
        return request


def main() -> int:
    """Print what is different, and return 1 if anything is."""
    parser = argparse.ArgumentParser(prog="tests.transit.replay")
    parser.add_argument("--keystead", action="store_true", help="the server is Keystead, which differs on purpose")
    parser.add_argument("url")
    parser.add_argument("token", help="one that may do everything")
    parser.add_argument("scenarios", nargs="+", choices=names(), metavar="scenario", help=", ".join(names()))
    given = parser.parse_args()
    url = given.url.rstrip("/")
    target = KeysteadTarget(url, given.token) if given.keystead else Running(url, given.token)
    found = 0
    for name in given.scenarios:
        played = play(scenario(name), target, OF_KEYSTEAD if given.keystead else NOTHING)
        found += len(played.differences)
        print(
            f"{name}: {played.compared} compared, {len(played.differences)} differences, on purpose {played.deviated}"
        )
        print(played, end="\n" if played.differences else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
