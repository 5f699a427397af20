"""The invoke API, by a process of its own and a real socket."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from algorithm.errors import UsageError
from algorithm.server import HEALTH_TIMEOUT_S, serve
from test.conftest import ROOT


class Service:
    """A running fake service; see test/support/fake_service.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "output").mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "test.support.fake_service", str(folder), "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = re.search(r":(\d+)$", self.process.stdout.readline().strip())
        assert said is not None
        self.port = int(said.group(1))

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 10
        while self.ask("GET", "/health")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def order(self, what: str) -> None:
        (self.folder / "order").write_text(what)

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> tuple[int, str, float]:
        """Send SIGTERM; return exit code, stderr and the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        _, stderr = self.process.communicate(timeout=20)
        return self.process.returncode, stderr, time.monotonic() - began

    def files(self) -> set[str]:
        return {path.name for path in self.folder.rglob("*") if path.is_file()} - {"order", "log"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    yield running
    running.process.kill()
    running.process.communicate()


def in_thread(service: Service, answers: list[tuple[int, str]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(service.ask("POST", "/invoke")))
    thread.start()
    return thread


def wait_for(service: Service, line: str) -> None:
    deadline = time.monotonic() + 10
    while line not in service.log():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reset_after(service: Service, request: bytes) -> str:
    """Ask, take a part of the answer, and reset the connection; an empty request is none."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as caller:
        answer = b""
        if request:
            caller.sendall(request + b"\r\n\r\n")
            answer = caller.recv(20)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.2)
    return answer.decode()


def test_health_waits_for_the_weights(tmp_path: Path) -> None:
    (tmp_path / "loading").touch()
    service = Service(tmp_path)
    try:
        assert service.ask("POST", "/invoke")[0] == 503
        began = time.monotonic()
        assert service.ask("GET", "/health")[0] == 503
        assert 0.5 * HEALTH_TIMEOUT_S < time.monotonic() - began < HEALTH_TIMEOUT_S, (
            "the platform's attempts are few"
        )
        threading.Timer(1.0, (tmp_path / "loading").unlink).start()
        assert service.ask("GET", "/health")[0] == 200, "told as soon as it is"
    finally:
        assert service.end()[0] == 0


def test_weights_that_cannot_be_loaded_end_the_server(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    service = Service(tmp_path)
    _, stderr = service.process.communicate(timeout=10)
    assert service.process.returncode == 3
    assert stderr == "Error: the weights are broken\n"


def test_a_job_answers_201(service: Service) -> None:
    service.wait_until_ready()
    service.order("good")
    assert service.ask("POST", "/invoke", b"{}")[0] == 201
    assert float((service.folder / "output" / "result").read_text()) < 5, "time counts from the turn"


def test_errors_are_told_and_the_server_lives_on(service: Service) -> None:
    service.wait_until_ready()
    service.order("bad input")
    assert service.ask("POST", "/invoke") == (422, "no CT image found; put one there\n")
    service.order("odd name")
    assert service.ask("POST", "/invoke") == (422, "no \\udcff.mha; put one there\n")
    service.order("bug")
    status, sentence = service.ask("POST", "/invoke")
    assert status == 500
    assert sentence.startswith("ZeroDivisionError: by zero")
    assert service.files() == set()
    service.order("good")
    assert service.ask("POST", "/invoke")[0] == 201
    code, stderr, _ = service.end()
    assert code == 0
    lines = stderr.splitlines()
    assert lines[0] == "Error: no CT image found; put one there"
    assert lines[1].endswith(".mha; put one there")
    assert lines[-1].startswith("Error: ZeroDivisionError: by zero. This is a bug")


def test_a_second_call_waits_its_turn(service: Service) -> None:
    service.wait_until_ready()
    service.order("short")
    answers: list[tuple[int, str]] = []
    threads = [in_thread(service, answers) for _ in range(3)]
    wait_for(service, "short begins")
    assert service.ask("GET", "/health")[0] == 200, "a busy server is healthy"
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [201] * 3
    assert service.log() == ["short begins", "short ends"] * 3
    waited = float((service.folder / "output" / "result").read_text())
    assert waited < 0.4, "a job's time counts from its turn"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/elsewhere", 404),
        ("POST", "/health", 405),
        ("GET", "/invoke", 405),
        ("DELETE", "/invoke", 405),
        ("HEAD", "/health", 200),
        ("GET", "/health?now", 200),
        ("GET", "/health/", 404),
    ],
)
def test_other_requests(service: Service, method: str, path: str, status: int) -> None:
    service.wait_until_ready()
    assert service.ask(method, path)[0] == status
    assert service.log() == []


def test_a_body_that_is_too_large_is_refused(service: Service) -> None:
    service.wait_until_ready()
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.putrequest("POST", "/invoke")
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()
    assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 404),
        (b"PUT /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        (b"GET http://a:4743/health HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ],
)
def test_a_connection_can_be_used_again(service: Service, request_: bytes, status: int) -> None:
    service.wait_until_ready()
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as caller:
        for asked, expected in ((request_, status), (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", 200)):
            caller.sendall(asked)
            answer = http.client.HTTPResponse(caller)
            answer.begin()
            answer.read()
            assert answer.status == expected


def test_a_length_of_many_digits_is_refused(service: Service) -> None:
    service.wait_until_ready()
    assert "413" in reset_after(service, b"POST /invoke HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000)
    assert service.end()[:2] == (0, "")


@pytest.mark.parametrize(
    "request_line", [b"", b"GET /health HTTP/1.1\r\nHost: a"], ids=["nothing asked", "health"]
)
def test_a_caller_that_hangs_up_leaves_nothing_on_stderr(service: Service, request_line: bytes) -> None:
    service.wait_until_ready()
    reset_after(service, request_line)
    assert service.ask("GET", "/health")[0] == 200
    assert service.end()[:2] == (0, "")


def test_sigterm_ends_an_idle_server_at_once(service: Service) -> None:
    service.wait_until_ready()
    code, stderr, seconds = service.end()
    assert (code, stderr) == (0, "")
    assert seconds < 1.5


def test_sigterm_ends_a_busy_server_with_nothing_half_written(service: Service) -> None:
    service.wait_until_ready()
    service.order("slow")
    answers: list[tuple[int, str]] = []
    thread = in_thread(service, answers)
    wait_for(service, "slow begins")
    _, _, seconds = service.end()
    thread.join()
    assert seconds < 4
    assert service.files() == set()
    assert answers[0][0] == 503


def test_a_taken_port_is_a_sentence(service: Service) -> None:
    with pytest.raises(
        UsageError, match=rf"cannot listen on 127.0.0.1:{service.port}: .*; choose another --host or"
    ):
        serve(lambda: lambda called: None, "127.0.0.1", service.port)


def test_sigterm_right_after_an_answer_is_not_lost(tmp_path: Path) -> None:
    """It can arrive while the server is about to wait for the next call."""
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        service = Service(tmp_path / str(number))
        service.wait_until_ready()
        service.order("good")
        assert service.ask("POST", "/invoke")[0] == 201
        code, _, seconds = service.end()
        assert code == 0
        assert seconds < 2
