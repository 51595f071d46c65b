"""A chat model behind any OpenAI-compatible address: vLLM, llama.cpp, Ollama, ``transformers serve``, a vendor."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphfm.graphllm.backends.answers import AnswerStore, Stored
from graphfm.graphllm.backends.base import Answer, Usage
from graphfm.graphllm.backends.post import ChatError, Refused, post_json
from graphfm.graphllm.backends.purse import BudgetError, Purse, Streak

__all__ = ["BudgetError", "ChatError", "OpenAIChat"]


class OpenAIChat:
    """Talks to ``URL/chat/completions``; safe to call from several threads.

    A request that fails for the moment (no connection, timeout, 408, 429, 5xx) is sent again after a wait that doubles
    each time, half of it random, and is at least what ``Retry-After`` asks for. Other failures are errors at once.
    Answers at temperature 0 are kept on disk by what was asked of which model at which address, so that a run that
    stops goes on where it was, and costs nothing the second time. Prices are counted from the tokens that the server
    reports; where it reports none, or what it may have written does not come or cannot be read, the most that the
    answer can have cost is counted.

    Args:
        url: up to and with ``/v1``.
        model: as the server calls it.
        key: sent as a bearer token; else the environment variable ``OPENAI_API_KEY``, else none. Never written down.
        concurrency: requests under way at a time.
        retries: after the first try.
        timeout: seconds without a word from the server.
        backoff: seconds before the first retry.
        longest_wait: seconds; a server that asks for more makes an error.
        prices: per million prompt tokens and completion tokens.
        budget: stop before the price of all answers of this object exceeds it, reckoning with the longest answer that
            could come; needs ``prices``.
        max_requests: stop after that many requests, retries among them.
        give_up: :meth:`complete_all` sends nothing more after that many conversations in a row without an answer.
        cache: folder of answers; ``None`` keeps none.
        extra: more fields of the request, such as ``{"seed": 0}`` or ``{"response_format": ...}``.
        seed: of the random half of the waits.

    Raises:
        ValueError: an address that is none, sizes that cannot be, a budget without prices.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        concurrency: int = 4,
        retries: int = 5,
        timeout: float = 60.0,
        backoff: float = 1.0,
        longest_wait: float = 120.0,
        prices: tuple[float, float] | None = None,
        budget: float | None = None,
        max_requests: int | None = None,
        give_up: int = 3,
        cache: str | os.PathLike[str] | None = None,
        extra: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url must start with http:// or https://, got {url!r}.")
        if concurrency < 1 or retries < 0 or timeout <= 0 or backoff < 0 or longest_wait < 0:
            raise ValueError(
                "concurrency must be at least 1, timeout above 0 and retries, backoff, longest_wait at least 0, "
                f"got {concurrency}, {timeout}, {retries}, {backoff}, {longest_wait}."
            )
        if give_up < 1:
            raise ValueError(f"give_up must be at least 1, got {give_up}.")
        if budget is not None and prices is None:
            raise ValueError("budget needs prices, per million prompt and completion tokens, such as (0.15, 0.6).")
        self.url, self.model, self.concurrency, self.retries = url.rstrip("/"), model, concurrency, retries
        self.timeout, self.backoff, self.longest_wait = timeout, backoff, longest_wait
        self.prices, self.budget, self.max_requests, self.give_up = prices, budget, max_requests, give_up
        self.extra = dict(extra or {})
        self._key = key or os.environ.get("OPENAI_API_KEY")
        self._store = None if cache is None else AnswerStore(Path(cache))
        self._slots = threading.Semaphore(concurrency)
        self._purse = Purse(budget, max_requests)
        self._random, self._random_lock = random.Random(seed), threading.Lock()

    @property
    def name(self) -> str:
        """Model, address and further fields."""
        return " ".join([self.model, self.url, json.dumps(self.extra, sort_keys=True)])

    @property
    def spent(self) -> Usage:
        """What all answers of this object cost together; cached ones cost nothing."""
        return self._purse.total()

    def complete(
        self, messages: Sequence[Mapping[str, str]], *, max_tokens: int = 256, temperature: float = 0.0
    ) -> Answer:
        """The answer to ``messages``.

        Raises:
            ChatError: the server cannot be reached, refuses, or answers what is no chat completion.
            BudgetError: the answer could cost more than is left.
            ValueError: messages that are none, or ``max_tokens`` below 1.
        """
        _check(messages, max_tokens)
        body = {
            "model": self.model, "messages": [dict(message) for message in messages], "max_tokens": max_tokens,
            "temperature": temperature, **self.extra,
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps([self.url, body], sort_keys=True).encode("utf-8", "surrogatepass"))
        keeps = self._store is not None and temperature == 0
        if keeps and self._store and (known := self._store.get(digest.hexdigest())) is not None:
            return Answer(known.text, Usage(), known.usage)
        answer = self._ask(body)
        if keeps and self._store:
            self._store.put(digest.hexdigest(), Stored(answer.text, answer.usage))
        return answer

    def complete_all(
        self, conversations: Sequence[Sequence[Mapping[str, str]]], *, max_tokens: int = 256, temperature: float = 0.0
    ) -> Iterator[tuple[int, Answer | ChatError]]:
        """Pairs of index and answer (or why there is none) as they come, ``concurrency`` at a time.

        Raises:
            BudgetError: the budget is spent; answers under way are given out first.
            ChatError: ``give_up`` in a row had no answer, as from a server that is down; likewise.
        """
        streak, spent = Streak(self.give_up), None

        def one(index: int) -> tuple[int, Answer | ChatError]:
            if streak.over.is_set():
                raise concurrent.futures.CancelledError
            try:
                answer = self.complete(conversations[index], max_tokens=max_tokens, temperature=temperature)
            except ChatError as error:
                streak.failed(error)
                return index, error
            if answer.kept is None:  # one from the disk says nothing about the server
                streak.answered()
            return index, answer

        with concurrent.futures.ThreadPoolExecutor(self.concurrency) as pool:
            under_way = {pool.submit(one, index) for index in range(len(conversations))}
            try:
                for done in concurrent.futures.as_completed(under_way):
                    try:
                        yield done.result()
                    except BudgetError as error:
                        spent = error
                    except concurrent.futures.CancelledError:
                        continue
                    if spent is not None:
                        for other in under_way:
                            other.cancel()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if spent is not None:
            raise spent
        streak.check()

    def _ask(self, body: dict[str, Any]) -> Answer:
        """Send until there is an answer, or no hope of one."""
        tries, lost = 0, 0.0
        with self._slots:
            while True:
                hold = self._purse.reserve(self._most(body))
                try:
                    reply = post_json(f"{self.url}/chat/completions", body, self._key, self.timeout)
                    text, tokens = _parse(reply, self.url)
                except Refused as refusal:
                    charged = hold if refusal.written else 0.0
                    self._purse.settle(hold, Usage(price=charged, requests=1))
                    tries, lost = tries + 1, lost + charged
                    time.sleep(self._wait(refusal, tries))
                except BaseException as error:
                    self._purse.settle(hold, Usage(price=hold if getattr(error, "written", True) else 0.0, requests=1))
                    raise
                else:
                    price = hold if tokens is None else self._price(*tokens)
                    prompt, completion = tokens or (0, 0)
                    self._purse.settle(hold, Usage(prompt, completion, price, 1))
                    return Answer(text, Usage(prompt, completion, price + lost, tries + 1))

    def _wait(self, refusal: Refused, tries: int) -> float:
        """Seconds until the next try.

        Raises:
            ChatError: there is none.
        """
        if tries > self.retries:
            raise ChatError(f"{refusal} (after {tries} tries)") from refusal
        with self._random_lock:
            wait = self.backoff * 2 ** (tries - 1) * (0.5 + self._random.random() / 2)
        asked = refusal.retry_after or 0.0
        if asked > self.longest_wait:
            raise ChatError(f"{refusal}; it asks to wait {asked:.0f} s, longest_wait is {self.longest_wait:.0f} s.")
        return max(min(wait, self.longest_wait), asked)

    def _price(self, prompt: int, completion: int) -> float:
        one, other = self.prices or (0.0, 0.0)
        return (prompt * one + completion * other) / 1e6

    def _most(self, body: dict[str, Any]) -> float:
        """What an answer can cost at most: no token is shorter than a byte."""
        size = sum(len(str(part).encode("utf-8", "replace")) + 16 for m in body["messages"] for part in m.values())
        return self._price(size, int(body["max_tokens"]))


def _check(messages: Sequence[Mapping[str, str]], max_tokens: int) -> None:
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}.")
    if isinstance(messages, str | Mapping) or not messages:
        raise ValueError('messages must be a list of {"role": ..., "content": ...}, at least one.')
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise ValueError(f'messages[{index}] must have "role" and "content", got {message!r}.')


def _parse(reply: Any, url: str) -> tuple[str, tuple[int, int] | None]:
    """Text of a chat completion, and its prompt tokens and completion tokens if it tells them."""
    try:
        text = reply["choices"][0]["message"]["content"]
        usage = reply.get("usage")
        tokens = None if not usage else (int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0))
        if text is None:  # a refusal, or a call of a tool: nothing was said
            text = ""
        if not isinstance(text, str) or (tokens is not None and min(tokens) < 0):
            raise ValueError("no text, or fewer tokens than none")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ChatError(f"{url} answers no chat completion but {str(reply)[:200]!r}.", written=True) from error
    return text, tokens
