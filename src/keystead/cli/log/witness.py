"""``keystead log witness``: a small witness of transparency logs."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from keystead.cli.frame import Call, say, wrong_usage
from keystead.cli.render import Outcome
from keystead.ledger import TrustPolicy
from keystead.ledger.tlog.note import NoteKey
from keystead.ledger.witness.keys import witness_signers
from keystead.ledger.witness.server import WitnessServer
from keystead.ledger.witness.witness import FolderState, Witness


def witness(
    call: Call,
    *,
    dir: Annotated[str, typer.Option("--dir", metavar="DIR", help="What it remembers, and its keys.")],
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="FILE", help="A log's trust policy; may be given again.")
    ] = None,
    vkey: Annotated[
        list[str] | None,
        typer.Option("--vkey", metavar="KEY", help="A log's verifier key, named as its log; again for more."),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
    ] = "127.0.0.1:8701",
    key: Annotated[
        str | None, typer.Option("--key", metavar="FILE", help="Its key, made at the first start; DIR/witness.key.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Its name: an address without scheme; kept from then on."),
    ] = None,
    ml_dsa: Annotated[bool, typer.Option("--ml-dsa", help="Cosign by an ML-DSA-44 key as well.")] = False,
) -> Outcome:
    """Cosign the checkpoints of logs that only grow (c2sp.org/tlog-witness), until SIGTERM or SIGINT.

    Prints its verifier keys at start: they go into the readers' policies. It speaks plain HTTP: put a TLS proxy in
    front of it where others reach it. Run it where whoever writes the logs cannot.
    """
    host, port = _address(listen)
    logs = _logs(policy or [], vkey or [])
    signers = witness_signers(
        Path(dir), name or socket.gethostname(), key, is_named=name is not None, has_ml_dsa=ml_dsa
    )
    engine = Witness(signers, logs, FolderState(Path(dir) / "logs"), lambda: int(time.time()))
    server = WitnessServer((host, port), engine, signers)
    for each in signers:
        say(f"vkey: {each.key.key.vkey}")
    say(f"witness of {', '.join(sorted(logs))} at {server.url}")

    def stop(number: int, frame: object) -> None:
        # shutdown() waits for the loop that this very thread runs.
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.serve_forever(poll_interval=0.1)
    server.close()
    return Outcome({"url": server.url, "vkeys": [each.key.key.vkey for each in signers]})


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        wrong_usage("--listen reads HOST:PORT, such as 127.0.0.1:8701 or [::1]:8701")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _logs(policies: list[str], vkeys: list[str]) -> dict[str, list[NoteKey]]:
    """Return the keys that count, by log."""
    logs: dict[str, list[NoteKey]] = {}
    now_ms = int(time.time() * 1000)
    for path in policies:
        found = TrustPolicy.load(path)
        logs.setdefault(found.stream, []).extend(each.key for each in found.signers if each.validity.covers(now_ms))
    for text in vkeys:
        key = NoteKey.parse(text)
        logs.setdefault(key.name, []).append(key)
    if not logs:
        wrong_usage("a witness knows the logs that it is told of: --policy FILE, or --vkey KEY")
    return logs
