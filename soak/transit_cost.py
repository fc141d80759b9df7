"""What encrypting over the machine API costs a node, beside the bare cipher, and beside the same calls on OpenBao."""

from __future__ import annotations

import json
import os
import socket
import time
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystead.access.transit_scopes import transit_scope
from soak.figures import Figures, Setting
from soak.harness import in_child
from soak.places import SQLITE
from soak.serving import Site, running
from tests.transit.targets.openbao import openbao_target

WHERE: Final = SQLITE
SIZE: Final = 64
ITEMS: Final = (100, 499)
ITEM_BAR: Final = 7.0
SINGLE_MS_BAR: Final = 0.6
SINGLE_RATE_BAR: Final = 0.5
BARE_CALLS: Final = 50_000


def measure(setting: Setting, figures: Figures) -> None:
    """Ask both servers in turn, again and again."""
    rounds, batches, singles = setting.choose(short=(2, 20, 100), full=(15, 200, 2_000))
    site = Site(setting.databases.place(WHERE, setting.folder / "cost"))
    bao = setting.folder / "openbao"
    bao.mkdir()
    with running(site, 1) as (node,), openbao_target(bao) as other:
        other.mount()
        token = site.token("somebody", transit_scope("transit:*:*"))
        given = ((node.url, token), (other.url, other.root_token))
        in_child(_begin, given)
        measured = [in_child(_measure, given, node.pid, batches, singles) for _ in range(rounds)]
    columns = {name: [each[name] for each in measured] for name in measured[0]}
    figures.tell(WHERE, "rounds, batches and single calls in each", f"{rounds}, {batches}, {singles}")
    for name, values in columns.items():
        figures.tell(WHERE, name, median(values))
    bars = figures if setting.is_full else None
    ratio = median(each["us of a node for an item of 499"] / each["us of the bare cipher"] for each in measured)
    _judge(figures, bars, "an item of 499, in bare calls", ratio, ITEM_BAR, most=True)
    single = median(columns["ms of a node for a single call"])
    _judge(figures, bars, "ms of a node for a single call", single, SINGLE_MS_BAR, most=True)
    for count in ITEMS:
        name = f"us for an item of {count}"
        faster = median(each[f"OpenBao, {name}"] / each[name] for each in measured)
        _judge(figures, bars, f"times OpenBao's speed, batches of {count}", faster, 1.0, most=False)
    rate = median(each["OpenBao, us for a single call"] / each["us for a single call"] for each in measured)
    _judge(figures, bars, "times OpenBao's speed, single calls", rate, SINGLE_RATE_BAR, most=False)


def _judge(figures: Figures, bars: Figures | None, what: str, value: float, bar: float, *, most: bool) -> None:
    if bars is None:
        figures.tell(WHERE, what, value)
    elif most:
        bars.at_most(WHERE, what, value, bar)
    else:
        bars.at_least(WHERE, what, value, bar)


class _Line:
    """A connection that is kept, over which whole requests go as bytes: next to nothing of the time is the client's."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"Host: {parts.netloc}\r\nX-Vault-Token: {token}\r\nContent-Type: application/json\r\n"

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def request(self, path: str, body: object) -> bytes:
        """Return a request as bytes."""
        content = json.dumps(body).encode()
        head = f"POST /v1/transit/{path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n"
        return head.encode() + content

    def send(self, request: bytes) -> None:
        """Send a request and read the whole answer, which has to be a good one."""
        self._socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._socket.recv(1 << 20)
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        if b" 200 " not in lines[0]:
            raise AssertionError(data[:500])
        sizes = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
        while (len(body) < sizes[0]) if sizes else not body.endswith(b"0\r\n\r\n"):
            body += self._socket.recv(1 << 20)


def _begin(given: tuple[tuple[str, str], ...]) -> None:
    for url, token in given:
        with closing(_Line(url, token)) as line:
            line.send(line.request("keys/cost", {}))
            for _ in range(20):
                line.send(line.request("encrypt/cost", _batch(499)))


def _measure(given: tuple[tuple[str, str], ...], pid: int, batches: int, singles: int) -> dict[str, float]:
    told = {"us of the bare cipher": _bare_s() * 1e6}
    for name, (url, token) in zip(("", "OpenBao, "), given, strict=True):
        with closing(_Line(url, token)) as line:
            for count in ITEMS:
                used, took = _sent(line, line.request("encrypt/cost", _batch(count)), batches, pid)
                told[f"{name}us for an item of {count}"] = took / count * 1e6
                if not name:
                    told[f"us of a node for an item of {count}"] = used / count * 1e6
            used, took = _sent(line, line.request("encrypt/cost", {"plaintext": _plaintext()}), singles, pid)
            told[f"{name}us for a single call"] = took * 1e6
            if not name:
                told["ms of a node for a single call"] = used * 1e3
    return told


def _sent(line: _Line, request: bytes, times: int, pid: int) -> tuple[float, float]:
    """Return the processor time of a process and the time that each of so many requests takes, in seconds."""
    used, began = _used_s(pid), time.perf_counter()
    for _ in range(times):
        line.send(request)
    return (_used_s(pid) - used) / times, (time.perf_counter() - began) / times


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bare_s() -> float:
    cipher, nonce, plaintext = AESGCM(os.urandom(32)), os.urandom(12), os.urandom(SIZE)
    began = time.process_time()
    for _ in range(BARE_CALLS):
        cipher.encrypt(nonce, plaintext, b"")
    return (time.process_time() - began) / BARE_CALLS


def _plaintext() -> str:
    return b64encode(os.urandom(SIZE)).decode()


def _batch(count: int) -> dict[str, list[dict[str, str]]]:
    return {"batch_input": [{"plaintext": _plaintext()} for _ in range(count)]}
