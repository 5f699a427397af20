"""Grand-challenge's invoke API: load once, then do one job per call.

``GET /health`` answers 200 once the service has loaded; ``POST /invoke`` does one job and answers 201 when its
results lie in ``/output``. The platform asks the first 30 times, waits 10 s for an answer and 5 s before it asks
again, and fails the job on any other answer to the second (its starter kit of July 2026). A service that answered
at once that it still loads would be given up after two and a half minutes, so it takes its time to say so.

Python's own HTTP server is enough for two addresses and one caller, and brings nothing into the image. It answers
in threads of its own; the jobs run in the main thread, one after the other in the order of their calls, because
that is where a signal can stop them.
"""

from __future__ import annotations

import contextlib
import http.server
import logging
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

from algorithm.console import Terminated
from algorithm.errors import InstallationError, UsageError, UserError
from algorithm.refusals import as_user_error

PORT = 4743
"""Where grand-challenge asks."""

HEALTH_ATTEMPTS, HEALTH_TIMEOUT_S, HEALTH_DELAY_S = 30, 10.0, 5.0
"""How often the platform asks for health, how long it waits for an answer, and until it asks again."""

Job = Callable[[float], None]
"""Does one job; takes the moment when its turn came (``time.monotonic``), from which its time limit counts."""

_LOADING_S = 0.8 * HEALTH_TIMEOUT_S  # until a question for health is answered that the service still loads

_LONGEST_WAIT_S = 0.2
_LARGEST_BODY = 2**20  # bytes of a request; the platform sends none
_LONGEST_NUMBER = 10  # digits
_ABSOLUTE = re.compile(r"^http://[^/]*/", re.IGNORECASE)  # as proxies are asked; RFC 9112, 3.2.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    text: str


@dataclass
class _Call:
    """One invoke call, from its arrival to its answer."""

    answered: threading.Event = field(default_factory=threading.Event)
    answer: _Answer = _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "the server was stopped before this job was done")


def serve(load: Callable[[], Job], host: str, port: int) -> int:
    """Listen, load, and do jobs until SIGTERM; return the exit code.

    Parameters
    ----------
    load : callable
        Loads whatever outlives a job (weights, kernels) and returns what does one. ``/health`` waits for it.
    host, port : str, int
        Where to listen; port 0 takes a free one, which the log names.

    Raises
    ------
    UsageError
        The address cannot be had.
    UserError
        Loading failed.
    """
    with _listening(host, port) as server:
        log.info("listening on %s:%d", *server.server_address[:2])
        try:
            job = load()
            server.ready.set()
            log.info("ready")
            while True:
                server.current = server.next_call()
                server.current.answer = _done(job)
                server.current.answered.set()
        except Terminated:
            log.info("stopped")
            return 0
        finally:
            server.drain()


def _done(job: Job) -> _Answer:
    """Do one job; whatever it ends in becomes an answer, and the last line of stderr where it failed."""
    began = time.monotonic()
    try:
        job(began)
    except Exception as error:
        known = error if isinstance(error, UserError) else as_user_error(error)
        if known is None:
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exception(error)
            known = InstallationError(f"{type(error).__name__}: {error}. This is a bug of this software")
        sentence = " ".join(str(known).split())
        with contextlib.suppress(OSError, ValueError):
            print(f"Error: {sentence}", file=sys.stderr, flush=True)
        ours = isinstance(known, InstallationError)
        return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR if ours else HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    log.info("job done in %.1f s", time.monotonic() - began)
    return _Answer(HTTPStatus.CREATED, "the results are in the output folder")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a caller that reads slowly must not keep a stopped server alive

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self.ready = threading.Event()
        self.calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self.current: _Call | None = None

    def next_call(self) -> _Call:
        """Return the next call, whenever it comes.

        A signal that arrives on the way into a wait does not end it, and the platform sends SIGTERM just when a
        job was answered. So no wait is long.
        """
        while True:
            with contextlib.suppress(queue.Empty):
                return self.calls.get(timeout=_LONGEST_WAIT_S)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing on stderr of a caller that hung up, as a poller may: what stands there is a failure."""
        log.debug("the connection of %s ended: %s", client_address, sys.exception())

    def drain(self) -> None:
        """Answer those whose job will not be done, and give their threads a moment to send it."""
        waiting = [self.current] if self.current and not self.current.answered.is_set() else []
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self.calls.get_nowait())
        for call in waiting:
            call.answered.set()
        if waiting:
            time.sleep(0.2)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds in which a request must have arrived
    server_version, sys_version = "h2aseg", ""

    _METHODS = {"/health": ("GET", "HEAD"), "/invoke": ("POST",)}  # noqa: RUF012

    def _route(self) -> None:
        path = _ABSOLUTE.sub("/", self.path).partition("?")[0]
        allowed = self._METHODS.get(path)
        small = self._discard_body()
        if allowed is None:
            self._send(HTTPStatus.NOT_FOUND, f"there is no {path}; ask /health or /invoke")
        elif self.command not in allowed:
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allowed[0]}", Allow=", ".join(allowed))
        elif not small:
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request needs no body")
        elif not self.server.ready.wait(_LOADING_S if path == "/health" else 0.0):
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "the weights are being loaded; ask again")
        elif path == "/health":
            self._send(HTTPStatus.OK, "ready")
        else:
            call = _Call()
            self.server.calls.put(call)
            call.answered.wait()
            self._send(call.answer.status, call.answer.text)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _route  # noqa: N815

    def _discard_body(self) -> bool:
        """Read what came with the request, so that the connection can be used again; False if it is too much."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            if self.rfile.readline(_LONGEST_NUMBER).strip() == b"0" and not self.rfile.readline(3).strip():
                return True
            self.close_connection = True
            return False
        length = self.headers.get("Content-Length", "0")
        known = length.isdecimal() and len(length) <= _LONGEST_NUMBER and not self.headers.get("Transfer-Encoding")
        if not known or int(length) > _LARGEST_BODY:
            self.close_connection = True
            return False
        self.rfile.read(int(length))
        return True

    def _send(self, status: HTTPStatus, text: str, **headers: str) -> None:
        body = f"{text}\n".encode("utf-8", "backslashreplace")  # names of files may hold any byte
        with contextlib.suppress(OSError):  # the caller went away
            self.send_response(status)
            for name, value in {"Content-Type": "text/plain; charset=utf-8", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr, which is for failures; health is asked every few seconds."""
        log.debug(format, *args)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[_Server]:
    try:
        server = _Server((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
