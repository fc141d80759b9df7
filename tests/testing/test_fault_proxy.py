"""The proxy that puts faults before a service."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from keystead.testing import FaultProxy


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self) -> None:
        type(self).served += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        content = json.dumps({"method": self.command, "path": self.path, "body": body}).encode()
        self.send_response_only(200)
        self.send_header("X-Seen", self.headers.get("X-Given", ""))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *given: object) -> None:
        return


@pytest.fixture
def service() -> Iterator[str]:
    Echo.served = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(service: str) -> Iterator[FaultProxy]:
    with FaultProxy(service) as made:
        yield made


def ask(
    proxy: FaultProxy, method: str = "POST", path: str = "/v1/x", body: str = "hello", *, timeout_s: float = 10
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(proxy.url).port, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"X-Given": "kept"})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else {}
    finally:
        connection.close()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "LIST"])
def test_requests_reach_the_service_as_they_are(proxy: FaultProxy, method: str) -> None:
    status, content = ask(proxy, method, "/v1/keys?list=true", "body")
    assert (status, content) == (200, {"method": method, "path": "/v1/keys?list=true", "body": "body"})
    assert proxy.requests == [(method, "/v1/keys?list=true")]


def test_the_next_requests_fail_and_no_more(proxy: FaultProxy) -> None:
    proxy.fail_next(2, status=503, body=b"{}")
    assert [ask(proxy)[0] for _ in range(3)] == [503, 503, 200]
    assert Echo.served == 1


def test_only_requests_of_a_path_fail(proxy: FaultProxy) -> None:
    proxy.fail_next(1, status=500, path="/decrypt/")
    assert ask(proxy, path="/v1/encrypt/key")[0] == 200
    assert ask(proxy, path="/v1/decrypt/key")[0] == 500


def test_every_nth_request_fails(proxy: FaultProxy) -> None:
    proxy.fail_every(3, status=429)
    assert [ask(proxy)[0] for _ in range(6)] == [200, 200, 429, 200, 200, 429]


def test_a_dropped_request_may_have_been_done(proxy: FaultProxy) -> None:
    proxy.drop_next()
    with pytest.raises(http.client.RemoteDisconnected):
        ask(proxy)
    assert Echo.served == 0
    proxy.drop_next(after_the_call=True)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(proxy)
    assert Echo.served == 1


def test_an_answer_is_cut_in_half(proxy: FaultProxy) -> None:
    proxy.truncate_next()
    with pytest.raises(http.client.IncompleteRead):
        ask(proxy)


def test_a_black_hole_takes_requests_and_answers_when_it_is_healed(proxy: FaultProxy) -> None:
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        ask(proxy, timeout_s=0.2)
    threading.Timer(0.2, proxy.heal).start()
    assert ask(proxy)[0] == 200


def test_delay_is_waited_for_before_each_request(proxy: FaultProxy) -> None:
    proxy.delay_s = 0.2
    started = time.monotonic()
    ask(proxy)
    assert time.monotonic() - started >= 0.2


def test_connections_are_refused_until_it_is_healed_at_the_same_address(proxy: FaultProxy) -> None:
    url = proxy.url
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        ask(proxy)
    proxy.heal()
    assert proxy.url == url
    assert ask(proxy)[0] == 200


def test_refusing_hangs_up_on_those_connected(proxy: FaultProxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(proxy.url).port, timeout=10)
    connection.request("GET", "/")
    connection.getresponse().read()
    proxy.refuse()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        connection.request("GET", "/")
        connection.getresponse()
    connection.close()


def test_it_speaks_tls_where_the_client_wants_it(service: str) -> None:
    authority = trustme.CA()
    tls, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.configure_trust(trust)
    with FaultProxy(service, tls=tls) as proxy:
        assert proxy.url.startswith("https://")
        connection = http.client.HTTPSConnection("127.0.0.1", urlsplit(proxy.url).port, context=trust, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
