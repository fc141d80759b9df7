"""One request: answered in time and in bounds, by whom the certificate names, or not at all."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from keystead.runtime.exchange import Answer, AnswerTooLargeError, ExchangeError, exchange

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def served(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give the port of a server that does this with one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    serve(connection)
                except OSError:
                    return

        thread = threading.Thread(target=run)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def told(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    return serve


def asked(url: str, *, within_s: float = 5.0, most: int = 1000) -> Answer:
    return exchange("GET", url, deadline=time.monotonic() + within_s, most=most)


def test_what_is_asked_for_is_the_path_with_its_query() -> None:
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heard.append(connection.recv(65_536))
        connection.sendall(OK)

    with served(serve) as port:
        assert asked(f"http://127.0.0.1:{port}/a/b?c=d#e") == Answer(200, "text/plain", b"hello")
    head = heard[0].split(b"\r\n")
    assert head[0] == b"GET /a/b?c=d HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}".encode() in head
    assert b"Connection: close" in head


def test_a_redirect_is_an_answer_and_nobody_follows_it() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    with served(told(moved)) as port:
        assert asked(f"http://127.0.0.1:{port}").status == 302


@pytest.mark.parametrize("framing", [b"Content-Length: 1001\r\n\r\n", b"\r\n"], ids=["announced", "unannounced"])
def test_no_more_is_read_than_is_allowed(framing: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + framing
    with served(told(head + b"x" * 1001)) as port, pytest.raises(AnswerTooLargeError, match="more than 1000 bytes"):
        asked(f"http://127.0.0.1:{port}")
    with served(told(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)) as port:
        assert len(asked(f"http://127.0.0.1:{port}").content) == 1000


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n", OK[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"],
    ids=["nothing", "no HTTP", "cut short", "cut short between chunks"],
)
def test_half_an_answer_is_none(answer: bytes) -> None:
    with served(told(answer)) as port, pytest.raises(ExchangeError):
        asked(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_answers_one_byte_now_and_then_is_hung_up_on(scheme: str) -> None:
    # The head of an answer, or of a record of the handshake, that goes on and on.
    first, piece = (b"\x16\x03\x03\x40\x00", b"\x02") if scheme == "https" else (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")

    def serve(connection: socket.socket) -> None:
        connection.sendall(first)
        for _ in range(3000):
            connection.sendall(piece)
            time.sleep(0.02)

    began = time.monotonic()
    with served(serve) as port, pytest.raises(ExchangeError):
        asked(f"{scheme}://127.0.0.1:{port}", within_s=0.2)
    assert 0.2 <= time.monotonic() - began < 30


def test_a_certificate_is_good_for_its_host_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            told(OK)(secured)

    with served(serve) as port, pytest.raises(ExchangeError, match="CERTIFICATE_VERIFY_FAILED"):
        asked(f"https://localhost:{port}")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with served(serve) as port:
        assert asked(f"https://localhost:{port}").content == b"hello"
    with served(serve) as port, pytest.raises(ExchangeError, match="CERTIFICATE_VERIFY_FAILED"):
        asked(f"https://127.0.0.1:{port}")


def test_nobody_there_is_no_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ExchangeError, match="refused"):
            asked(f"http://127.0.0.1:{taken.getsockname()[1]}")
