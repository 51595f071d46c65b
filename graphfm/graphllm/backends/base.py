"""The three interfaces between methods and language models: embed text, read prompts from inside, chat."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = ["Answer", "CausalLM", "ChatClient", "Counts", "TextEncoder", "TokenStates", "Usage", "check_texts"]


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a report must say about texts: how many there are, how many hold no word, how many are cut to fit."""

    texts: int
    empty: int = 0
    cut: int = 0


@dataclasses.dataclass(frozen=True)
class TokenStates:
    """Hidden states token by token: ``ids`` ``[N, T]``, ``mask`` ``[N, T]`` (1 = a token), ``states`` ``[N, L, T, D]``.

    Padding is on the right; states of padding mean nothing.
    """

    ids: Tensor
    mask: Tensor
    states: Tensor


@dataclasses.dataclass(frozen=True)
class Usage:
    """What one answer cost: tokens in and out, price in the currency of the price list, requests sent (0: cached)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    price: float = 0.0
    requests: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.price + other.price,
            self.requests + other.requests,
        )


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a chat model said, and what that cost.

    Attributes:
        text: what it said.
        usage: what it cost now; nothing if it came from a disk.
        kept: what it cost when it was first given, if it came from a disk.
    """

    text: str
    usage: Usage
    kept: Usage | None = None

    @property
    def cost(self) -> Usage:
        """What it cost when it was first given."""
        return self.usage if self.kept is None else self.kept


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into vectors. ``encode`` is frozen and without gradients; a text of no words gives zeros."""

    @property
    def name(self) -> str:
        """Says which model with which settings: part of the key under which vectors are cached."""

    @property
    def dim(self) -> int:
        """D, the width of a vector."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Float32 vectors ``[N, D]`` on the CPU, in the order of the texts."""

    def count(self, texts: Sequence[str]) -> Counts:
        """How many of the texts hold no word and how many are longer than the model reads."""


@runtime_checkable
class CausalLM(Protocol):
    """A causal language model from inside. Padding is the callee's matter; prompts that are too long are cut."""

    @property
    def name(self) -> str:
        """Says which model with which settings: part of the key under which states are cached."""

    @property
    def dim(self) -> int:
        """D, the width of a hidden state, and of a row of ``inputs_embeds``."""

    @property
    def num_layers(self) -> int:
        """L: ``layers`` run from 0 (the embeddings) to L, or -1 for the last."""

    @property
    def context(self) -> int:
        """The longest sequence, prompt and label together."""

    @property
    def model(self) -> nn.Module:
        """The module, to freeze, to attach adapters to, to move."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""

    def hidden(
        self, texts: Sequence[str], layers: Sequence[int] = (-1,), pool: Literal["mean", "last"] = "mean"
    ) -> Tensor:
        """Float32 states ``[N, len(layers), D]`` without gradients, a text's tokens averaged, or its last one."""

    def token_states(self, texts: Sequence[str], layers: Sequence[int] = (-1,)) -> TokenStates:
        """The states of every token, without gradients; hand in one batch at a time."""

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings ``[..., D]`` of token ids ``[...]``, with gradients."""

    def forward(self, inputs_embeds: Tensor, mask: Tensor, keep: int = 0) -> tuple[Tensor, Tensor]:
        """Logits ``[B, T, V]`` and last states ``[B, T, D]`` of ``inputs_embeds`` ``[B, T, D]``, with gradients.

        With ``keep``, logits are of the last ``keep`` tokens alone, ``[B, keep, V]``: they are the largest part of it.
        ``mask`` ``[B, T]`` is 1 where there is a token; padding may be on either side.
        """

    def score(self, prompts: Sequence[str], labels: Sequence[str]) -> Tensor:
        """Log-likelihood ``[N, C]`` of each label (and the end after it) as the continuation of each prompt."""

    def score_embeds(self, inputs_embeds: Tensor, mask: Tensor, labels: Sequence[str]) -> Tensor:
        """The same ``[B, C]`` where the prompts are given as embeddings; gradients reach them when grad is on."""

    def label_ids(self, labels: Sequence[str]) -> list[list[int]]:
        """The tokens of each label as a continuation, the end token last: no list is the beginning of another."""

    def generate(self, prompts: Sequence[str], max_new_tokens: int = 32) -> list[str]:
        """What the model says next, greedily."""

    def count(self, prompts: Sequence[str], labels: Sequence[str] = ()) -> Counts:
        """How many prompts are empty, and how many are cut to leave room for the longest label."""


@runtime_checkable
class ChatClient(Protocol):
    """Talks to a model behind an address."""

    @property
    def name(self) -> str:
        """Says which model with which settings: part of the key under which answers are cached."""

    def complete(
        self, messages: Sequence[Mapping[str, str]], *, max_tokens: int = 256, temperature: float = 0.0
    ) -> Answer:
        """The model's answer to messages of ``{"role": ..., "content": ...}``."""


def check_texts(texts: Sequence[str], name: str = "texts") -> list[str]:
    """``texts`` as a list of strings.

    Raises:
        TypeError: a single string, or something in it that is none; ``None`` for a missing text becomes ``""`` first.
    """
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a sequence of strings, got one string; write [{name}].")
    found = list(texts)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f'{name}[{index}] must be a string, got {type(text).__name__}; use "" for a missing text.')
    return found
