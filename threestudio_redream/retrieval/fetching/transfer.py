"""One HTTP request that is resumed where the last one stopped: headers checked, bytes capped, time limited."""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any, NoReturn

from threestudio_redream.retrieval.errors import FetchError

__all__ = ["Interrupted", "Received", "TransferLimits", "check_url", "transfer"]

_BLOCK = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_USER_AGENT = "threestudio-redream"


class Interrupted(Exception):
    """The transfer stopped in a way that another attempt may mend.

    Args:
        reason: for people. wait_s: what the server asked to wait, or None. restart: what came so far is useless.
    """

    def __init__(self, reason: str, *, wait_s: float | None = None, restart: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.wait_s, self.restart = reason, wait_s, restart


@dataclass(frozen=True)
class TransferLimits:
    """What a server may do to us.

    Attributes:
        max_bytes: of the whole file; more is refused, from the headers where they say so.
        stall_s: seconds without a byte. min_bytes_per_s: over ``window_s`` seconds; slower is a stall.
        deadline_s: for one file, retries and waits included.
        retries: further attempts after the first; ``backoff_s`` doubles from one to the next.
    """

    max_bytes: int = 256 * 1024**2
    stall_s: float = 30.0
    min_bytes_per_s: float = 1024.0
    window_s: float = 10.0
    deadline_s: float = 1800.0
    retries: int = 4
    backoff_s: float = 1.0


@dataclass(frozen=True)
class Received:
    """What an attempt that went through to the end found out.

    Attributes:
        url: after redirects. resumed_from: bytes that were there before. n_bytes: of the whole file.
    """

    url: str
    resumed_from: int
    n_bytes: int


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_url(newurl)
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise FetchError("a redirect leads from https to http", received=newurl[:200], fix="Ask its maintainers")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str) -> None:
    """Raise FetchError unless the address is https, or http on this very machine (for mirrors and tests).

    With ``HF_HUB_OFFLINE=1`` in the environment, as elsewhere in this package, only this machine is asked.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise FetchError("the address cannot be read", received=url[:200], fix="Check it") from error
    if parts.username is not None or parts.password is not None or re.search(r"[\x00-\x20\x7f]", url):
        raise FetchError("the address holds a password or control characters", received=url[:40], fix="Check it")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        raise FetchError("only https addresses are fetched", received=url[:200], fix="Use an https address")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE") and not _is_loopback(host):
        raise FetchError("downloads are switched off by HF_HUB_OFFLINE", received=url[:200], fix="Unset it to fetch")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def transfer(
    url: str,
    file: IO[bytes],
    limits: TransferLimits,
    *,
    offset: int = 0,
    validator: str = "",
    deadline: float,
    began: Callable[[str], None] = lambda validator: None,
    check_head: Callable[[bytes], None] = lambda head: None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Received:
    """Append to ``file`` what is missing after ``offset`` bytes; once only, without retries.

    Args:
        file: open for writing at ``offset``; truncated if the server starts over.
        validator: ETag or date of the bytes before ``offset``; with none, nothing is resumed.
        deadline: in ``time.monotonic()``. began: called with the validator of a file that starts over, before bytes.
        check_head: called with the first bytes of the file, may raise FetchError. progress: (bytes, size or None).

    Raises:
        Interrupted: try again. FetchError: another attempt cannot help.
    """
    resuming = offset > 0 and bool(validator)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": _USER_AGENT})
    if resuming:
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", validator)
    # A proxy is for the world outside; it cannot reach this machine.
    local = _is_loopback(urllib.parse.urlsplit(url).hostname or "")
    opener = urllib.request.build_opener(_Redirects, *([urllib.request.ProxyHandler({})] if local else []))
    try:
        with opener.open(request, timeout=max(0.01, min(limits.stall_s, deadline - time.monotonic()))) as response:
            start, total = _check_headers(response.status, response.headers, offset if resuming else 0, limits)
            if start > 0 and response.headers.get("ETag", validator) != validator and validator.startswith('"'):
                raise Interrupted("the server continues with another file", restart=True, wait_s=0.0)
            if start == 0:
                file.seek(0)
                file.truncate()
                began(_validator(response.headers))
            done = _copy(response, file, start, total, limits, deadline, check_head, progress)
            return Received(response.geturl(), start, done)
    except urllib.error.HTTPError as error:
        with error:
            _raise_status(error, resuming)
    except (TimeoutError, http.client.HTTPException, urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise Interrupted(f"{type(reason).__name__}: {reason}"[:200]) from error


def _raise_status(error: urllib.error.HTTPError, resuming: bool) -> NoReturn:
    if error.code == 416 and resuming:
        raise Interrupted("the server has fewer bytes than are here", restart=True, wait_s=0.0) from error
    if error.code in (408, 425, 429) or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        raise Interrupted(
            f"HTTP {error.code}", wait_s=float(after) if re.fullmatch(r"\d{1,4}", after) else None
        ) from error
    fix = {
        401: "It needs an account or a token",
        403: "It needs an account or a token",
        404: "It was removed; leave it out or update the catalogue",
        410: "It was removed; leave it out or update the catalogue",
    }
    raise FetchError(
        f"the server refuses the file (HTTP {error.code})",
        received=error.url,
        fix=fix.get(error.code, "Check the address"),
    ) from error


def _validator(headers: Message) -> str:
    """A strong ETag, or the date; a weak tag does not promise equal bytes."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _check_headers(status: int, headers: Message, offset: int, limits: TransferLimits) -> tuple[int, int | None]:
    """Where the answer starts, and the size of the whole file if the server says so."""
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchError("the server packs the file", received=headers["Content-Encoding"], fix="Use another mirror")
    start, total, length = 0, None, headers.get("Content-Length")
    if status == 206:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            raise Interrupted("the server continues at the wrong place", restart=True, wait_s=0.0)
        start, total = offset, None if match[3] == "*" else int(match[3])
    elif status != 200:
        raise FetchError("the server gives no file", received=f"HTTP {status}", fix="Check the address")
    if total is None and length is not None and length.isdecimal():
        total = start + int(length)
    if total is not None and total > limits.max_bytes:
        raise FetchError(
            f"the file is larger than the cap of {limits.max_bytes:,} bytes",
            received=total,
            fix="Raise the cap or skip it",
        )
    return start, total


def _copy(
    response: Any,
    file: IO[bytes],
    done: int,
    total: int | None,
    limits: TransferLimits,
    deadline: float,
    check_head: Callable[[bytes], None],
    progress: Callable[[int, int | None], None],
) -> int:
    window_start, window_bytes, fresh = time.monotonic(), 0, done == 0
    while True:
        block = response.read1(_BLOCK)
        if not block:
            break
        if fresh:
            check_head(block)
            fresh = False
        done += len(block)
        if done > limits.max_bytes:
            raise FetchError(
                f"the file is larger than the cap of {limits.max_bytes:,} bytes",
                received=done,
                fix="Raise the cap or skip it",
            )
        if total is not None and done > total:
            raise Interrupted("more bytes came than were announced", restart=True)
        file.write(block)
        progress(done, total)
        now = time.monotonic()
        window_bytes += len(block)
        if now > deadline:
            raise Interrupted("the deadline for the file has passed")
        if now - window_start > limits.window_s:
            if window_bytes < limits.min_bytes_per_s * (now - window_start):
                raise Interrupted(f"only {window_bytes / (now - window_start):.0f} bytes came per second")
            window_start, window_bytes = now, 0
    if total is not None and done < total:
        raise Interrupted(f"the connection ended after {done:,} of {total:,} bytes")
    return done
