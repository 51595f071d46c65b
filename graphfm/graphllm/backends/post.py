"""Post JSON, get JSON; what goes wrong is either worth another try or it is not."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

__all__ = ["ChatError", "Refused", "post_json"]

_FOR_THE_MOMENT = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_LARGEST = 16 * 2**20


class ChatError(RuntimeError):
    """The server cannot be reached, refuses, or answers something else than it was asked for.

    Attributes:
        written: whether the server may have written an answer, and may charge for it.
    """

    def __init__(self, message: str, *, written: bool = False) -> None:
        super().__init__(message)
        self.written = written


class Refused(ChatError):
    """Perhaps not for long: worth another try, after ``retry_after`` seconds if the server says so."""

    def __init__(self, message: str, retry_after: float | None = None, *, written: bool = False) -> None:
        super().__init__(message, written=written)
        self.retry_after = retry_after


def post_json(url: str, body: Any, key: str | None, timeout: float) -> Any:
    """The answer to ``body``.

    Raises:
        Refused: no connection, no word within ``timeout`` seconds, 408, 429, 5xx, an answer that breaks off.
        ChatError: another status, or an answer that is no JSON.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "graphfm"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            content = _read(response, time.monotonic() + timeout)
            kind = response.headers.get_content_type()
    except urllib.error.HTTPError as error:
        with error:
            words = _plain(error.read(2000))
        message = f"{url} answers {error.code} {error.reason}: {words}"
        if error.code in _FOR_THE_MOMENT:
            raise Refused(message, _seconds(error.headers.get("Retry-After"))) from error
        raise ChatError(message) from error
    except TimeoutError as error:
        message = f"{url} says nothing for {timeout:g} s; raise timeout or lower concurrency."
        raise Refused(message, written=True) from error
    except http.client.IncompleteRead as error:
        raise Refused(f"{url} breaks off in the middle of an answer ({error}).", written=True) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            raise Refused(f"{url} cannot be reached within {timeout:g} s; is the server running?") from error
        message = f"{url} cannot be reached ({reason or type(error).__name__}); is the server running?"
        # Before the request is out, urllib wraps what happens in a URLError; what happens later may be charged for.
        raise Refused(message, written=not isinstance(error, urllib.error.URLError)) from error
    if len(content) > _LARGEST:
        raise ChatError(f"{url} answers more than {_LARGEST} bytes.", written=True)
    try:
        return json.loads(content)
    except ValueError as error:
        what = "a web page" if kind == "text/html" or content.lstrip()[:1] == b"<" else "no JSON"
        raise ChatError(
            f"{url} answers {what}: {_plain(content)!r}; the address must end where /chat/completions begins, "
            "often with /v1.",
            written=True,
        ) from error


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """All of it by ``deadline``: a server that sends a byte now and then must not hold us for ever."""
    parts, size = [], 0
    while (part := response.read1(65536)) and size <= _LARGEST:
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:  # bytes that were announced and never came
        raise http.client.IncompleteRead(b"".join(parts), response.length)
    return b"".join(parts)


def _plain(content: bytes) -> str:
    return " ".join(content.decode("utf-8", "replace").split())[:200]


def _seconds(header: str | None) -> float | None:
    """``Retry-After``: seconds, or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
