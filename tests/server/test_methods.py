"""Requests reach the application with the method that they were sent with, however the bytes came in."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
import uvicorn

from keystead.server.methods import PROTOCOL


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", scope["path"] != "/early"
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    content = json.dumps([scope["method"], scope["path"], body.decode()]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where an application listens that tells what it was asked."""
    server = uvicorn.Server(uvicorn.Config(echo, http=PROTOCOL, lifespan="off", log_level="error", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield int(listening.getsockname()[1])
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("method", ["GET", "POST", "LIST", "FROB", "PROPFIND", "L", "GETS", "A" * 32])
def test_a_request_arrives_with_its_method_and_its_body(method: str, port: int) -> None:
    line = HTTPConnection("127.0.0.1", port, timeout=10)
    for body in ("", "some text", ""):
        line.request(method, "/a/b", body or None)
        assert json.loads(line.getresponse().read()) == [method, "/a/b", body]
    line.close()


@pytest.mark.parametrize("method", ["LIST", "GET", "FROB"])
def test_bytes_that_come_one_by_one_are_the_same_request(method: str, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        for _ in range(2):
            for byte in f"{method} /keys HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nhi".encode():
                line.sendall(bytes([byte]))
            assert json.loads(answered(line)) == [method, "/keys", "hi"]


def test_a_body_that_begins_like_a_request_is_a_body(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"POST /a HTTP/1.1\r\nHost: here\r\nContent-Length: 22\r\n\r\n")
        line.sendall(b"LIST /keys HTTP/1.1\r\n\r")
        assert json.loads(answered(line)) == ["POST", "/a", "LIST /keys HTTP/1.1\r\n\r"]


@pytest.mark.parametrize("method", ["LIST", "FROB", "GET"])
def test_a_request_right_behind_a_body_that_nobody_waited_for_is_a_request(method: str, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        for sent, rest in ((b"", b"abcde"), (b"ab", b"cde")):
            line.sendall(b"POST /early HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\n" + sent)
            assert json.loads(answered(line)) == ["POST", "/early", ""]
            line.sendall(rest + f"{method} /keys HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nhi".encode())
            assert json.loads(answered(line)) == [method, "/keys", "hi"]


@pytest.mark.parametrize("begins", ["list /keys", "A" * 33 + " /keys", "L1ST /keys", "* /keys", "LIST  "])
def test_what_is_no_method_is_no_request(begins: str, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(f"{begins} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 400 ")


def answered(line: socket.socket) -> bytes:
    """Return the body of the answer that comes next."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += line.recv(1000)
    head, _, body = content.partition(b"\r\n\r\n")
    length = next(int(each[15:]) for each in head.split(b"\r\n") if each.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += line.recv(1000)
    return body
