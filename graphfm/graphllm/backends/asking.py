"""Many questions to one chat model, each a conversation of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from graphfm.graphllm.backends.base import Answer, Usage

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import ChatClient

__all__ = ["ask_all"]


def ask_all(
    chat: ChatClient,
    questions: Sequence[str],
    max_tokens: int,
    came: Callable[[str, Answer], None] | None = None,
) -> tuple[list[str], Usage]:
    """The answers in the order of the questions, at temperature 0, and what they cost together.

    A client with ``complete_all`` is asked several at a time. The same question is asked once. Answers that the client
    has on disk cost what they cost when they were first given, so that a method's cost does not hang on what ran
    before it; what is paid now is in ``chat.spent``, if it counts.

    Args:
        chat: the client.
        questions: one conversation each.
        max_tokens: of an answer.
        came: is called with each question and its answer as soon as it is there.

    Raises:
        Exception: what the client raises; answers until then are in its cache, if it has one.
    """
    once = list(dict.fromkeys(questions))
    conversations = [[{"role": "user", "content": text}] for text in once]
    together = getattr(chat, "complete_all", None)
    coming: Iterable[tuple[int, Answer | Exception]] = (
        together(conversations, max_tokens=max_tokens)
        if together is not None
        else ((index, chat.complete(one, max_tokens=max_tokens)) for index, one in enumerate(conversations))
    )
    told: dict[str, str] = {}
    spent = Usage()
    failed: Exception | None = None
    for index, answer in coming:
        if isinstance(answer, Exception):
            failed = failed or answer
            continue
        told[once[index]] = answer.text
        spent = spent + answer.cost
        if came is not None:
            came(once[index], answer)
    if failed is not None:
        raise failed
    return [told[text] for text in questions], spent
