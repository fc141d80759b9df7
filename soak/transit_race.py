"""Administrators rotate a Transit key and move its minimum while clients encrypt; nodes are killed meanwhile.

Whatever a client was given has to decrypt at the end, when the minimum is 1 again, on nodes that are started anew.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import threading
import time
from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from keystead.access.callers import Scope
from keystead.access.transit_scopes import transit_scope
from soak.figures import Figures, Setting
from soak.harness import fork, in_child, results
from soak.places import POSTGRESQL, SQLITE
from soak.serving import Node, Site, running

ADMINISTRATORS: Final = 8
CLIENTS: Final = 8
KEEPS: Final = 6
"""Versions that may decrypt meanwhile."""
TOO_OLD: Final = "too old"
MEANT: Final = (TOO_OLD, "latest key version is", "no such key version")
AT_ONCE: Final = 200


@dataclass(slots=True)
class Line:
    """A connection to one of several nodes; another when that is gone."""

    urls: list[str]
    token: str
    seen: Counter[str] = field(default_factory=Counter)
    _open: http.client.HTTPConnection | None = None

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the data of an answer; None where there was none, or a refusal that is counted by its text."""
        try:
            if self._open is None:
                parts = urlsplit(random.choice(self.urls))
                self._open = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            self._open.request("POST", f"/v1/transit/{path}", json.dumps(body), {"X-Vault-Token": self.token})
            answer = self._open.getresponse()
            content = json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError):
            self.seen["connection gone"] += 1
            self._open = None
            time.sleep(0.02)
            return None
        if answer.status in (200, 204) or content.get("data"):
            self.seen["answered"] += 1
            return dict(content.get("data") or {})
        text = "; ".join(content.get("errors", ())) or str(content)
        self.seen[_named(answer.status, text)] += 1
        return None


def _named(status: int, text: str) -> str:
    if status == 409 or (status == 400 and any(each in text for each in MEANT)):
        return "too old, or conflict"
    # A node that was just started listens already, and has not opened its store.
    return "starting" if (status, text) == (503, "Vault is sealed") else f"{status}: {text[:90]}"


def measure(setting: Setting, figures: Figures) -> None:
    """Race on each database: on PostgreSQL over four nodes."""
    for where, nodes in ((SQLITE, 1), (POSTGRESQL, 4)):
        _race(setting, figures, where, nodes)


def _race(setting: Setting, figures: Figures, where: str, count: int) -> None:
    seconds, every_s = setting.choose(short=(5.0, 2.0), full=(60.0, 4.0))
    site = Site(setting.databases.place(where, setting.folder / f"race-{where}"), {"KEYSTEAD_EPOCH_MAX_AGE": "2s"})
    stop = site.place.folder / "stop"
    with running(site, count) as nodes:
        token = site.token("somebody", transit_scope("transit:*:*"), Scope.AUDIT_READ)
        urls = [node.url for node in nodes]
        in_child(_create, urls, token)
        workers = [fork(_work, Work(urls, token, site.place.folder, half)) for half in range(2)]
        kills = _kill(nodes, seconds, every_s)
        stop.touch()
        seen = sum(results(workers, 300), Counter[str]())
        for node in nodes:
            node.stop()
            node.start()
            node.wait()
        told = in_child(_compare, urls, token, site.place.folder)
    figures.tell(where, "nodes, and how often one was killed and started again", f"{count}, {kills}")
    figures.tell(where, "ciphertexts given out, and the latest version", f"{told['given']}, {told['latest']}")
    figures.at_least(where, "ciphertexts given out", told["given"], 100)
    figures.equal(where, "ciphertexts lost", told["lost"], 0)
    figures.tell(where, "answers to the decryption of everything", told["refusals"])
    figures.equal(where, "wrong plaintexts", told["wrong"] + seen.pop("wrong plaintext", 0), 0)
    figures.tell(where, "answers", ", ".join(f"{number} {what}" for what, number in sorted(seen.items())))
    unmeant = {what: number for what, number in seen.items() if what[:3].isdigit()}
    figures.equal(
        where, "refusals for another reason", "; ".join(f"{n} x {w}" for w, n in unmeant.items()) or "none", "none"
    )
    report, entries = site.trail("key.rotate")
    figures.equal(where, "the audit trail verifies", report.valid, True)
    rotated = sum(entry.get("keyring") == "keystead.transit/raced" for entry in entries)
    figures.equal(where, "rotations in the audit trail", rotated, told["latest"] - 1)


def _kill(nodes: list[Node], seconds: float, every_s: float) -> int:
    until, kills = time.monotonic() + seconds, 0
    while time.monotonic() + every_s < until:
        time.sleep(every_s)
        node = nodes[kills % len(nodes)]
        node.kill()
        node.start()
        kills += 1
    time.sleep(max(0.0, until - time.monotonic()))
    for node in nodes:
        node.wait()
    return kills


def _create(urls: list[str], token: str) -> None:
    assert Line(urls, token).ask("keys/raced", {}) is not None


@dataclass(frozen=True, slots=True)
class Work:
    """What one of two processes does: half of the administrators, and half of the clients."""

    urls: list[str]
    token: str
    folder: Path
    half: int

    @property
    def stop(self) -> Path:
        """A file that ends it."""
        return self.folder / "stop"


def _work(work: Work) -> Counter[str]:
    lines = [Line(work.urls, work.token) for _ in range((ADMINISTRATORS + CLIENTS) // 2)]
    jobs = []
    for at, line in enumerate(lines):
        if at < ADMINISTRATORS // 2:
            jobs.append(threading.Thread(target=_administer, args=(line, work.stop)))
        else:
            given = work.folder / f"given-{work.half}-{at}"
            jobs.append(threading.Thread(target=_encrypt, args=(line, work.stop, given)))
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return sum((line.seen for line in lines), Counter[str]())


def _administer(line: Line, stop: Path) -> None:
    while not stop.exists():
        key = line.ask("keys/raced/rotate", {})
        if key is not None:
            line.ask("keys/raced/config", {"min_decryption_version": max(1, key["latest_version"] - KEEPS)})
        time.sleep(0.05)


def _encrypt(line: Line, stop: Path, path: Path) -> None:
    """Encrypt, note what was given out, and decrypt something of what was."""
    given: list[tuple[str, str]] = []
    with path.open("a", encoding="ascii") as file:
        while not stop.exists():
            plaintext = b64encode(os.urandom(24)).decode()
            made = line.ask("encrypt/raced", {"plaintext": plaintext})
            if made is not None:
                given.append((plaintext, made["ciphertext"]))
                file.write(f"{plaintext} {made['ciphertext']}\n")
            if given:
                plaintext, text = random.choice(given[-200:])
                opened = line.ask("decrypt/raced", {"ciphertext": text})
                if opened is not None and opened["plaintext"] != plaintext:
                    line.seen["wrong plaintext"] += 1
            time.sleep(0.005)


def _compare(urls: list[str], token: str, folder: Path) -> dict[str, Any]:
    line = Line(urls, token)
    key = None
    while key is None:
        key = line.ask("keys/raced/config", {"min_decryption_version": 1})
    # A node that has not heard of the change yet hears of it within its two seconds.
    time.sleep(3)
    told: dict[str, Any] = {"latest": int(key["latest_version"]), "given": 0, "lost": 0, "wrong": 0}
    line.seen.clear()
    for path in sorted(folder.glob("given-*")):
        pairs = [each.split() for each in path.read_text(encoding="ascii").splitlines()]
        for at in range(0, len(pairs), AT_ONCE):
            part = pairs[at : at + AT_ONCE]
            told["given"] += len(part)
            found = None
            with contextlib.suppress(KeyError):
                found = line.ask("decrypt/raced", {"batch_input": [{"ciphertext": text} for _, text in part]})
            if found is None:
                told["lost"] += len(part)
                continue
            for (plaintext, text), result in zip(part, found["batch_results"], strict=True):
                if "error" in result:
                    told["lost"] += 1
                    line.seen[f"{text[:12]} {result['error']}"] += 1
                else:
                    told["wrong"] += b64decode(result["plaintext"]) != b64decode(plaintext)
    return told | {"refusals": ", ".join(f"{number} {what}" for what, number in line.seen.items())}
