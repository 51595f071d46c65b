"""A causal language model in this process, of transformers: a folder, a hub name, or a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphfm.device import as_device
from graphfm.graphllm.backends import extras
from graphfm.graphllm.backends.base import Counts, TokenStates, check_texts
from graphfm.graphllm.backends.identity import model_identity
from graphfm.graphllm.backends.ledger import Ledger
from graphfm.graphllm.backends.prompts import cut_embeds, cut_middle, label_tokens, pad_left, prompt_tokens
from graphfm.graphllm.backends.scoring import label_log_likelihoods, one_by_one, positions, reads_blocks

__all__ = ["LocalLM"]


class LocalLM:
    """A :class:`~graphfm.graphllm.CausalLM` around a model and a tokenizer of transformers; see :meth:`load`.

    Prompts that leave no room for what is to follow lose their middle: the first half of the tokens that fit and the
    last half stay; of prompts that are given as vectors too. :meth:`count` says how many.

    Args:
        model: with a head over the vocabulary; put into evaluation mode.
        tokenizer: its own.
        name: which model; part of cache keys.
        batch: prompts at a time.
        context: use no more tokens than that; else what the model was made for.

    Attributes:
        ledger: how many prompts were read and how many of them were cut.

    Raises:
        ValueError: a size below 1, or a tokenizer without any special token to pad with.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, name: str, batch: int = 8, context: int | None = None
    ) -> None:
        config: Any = model.config
        limit = int(getattr(config, "max_position_embeddings", None) or 2**20)
        if batch < 1 or (context is not None and context < 1):
            raise ValueError(f"batch and context must be at least 1, got {batch} and {context}.")
        pads = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
        pads = [int(pad) for pad in pads if pad is not None]
        if not pads:
            raise ValueError("tokenizer has no token to pad with; set tokenizer.pad_token.")
        self._pad = pads[0]
        self.model, self.tokenizer, self.batch = model.eval(), tokenizer, batch
        self.ledger = Ledger()
        self.context = min(limit, context or limit)
        dtype = str(self._dtype).removeprefix("torch.")
        self.name = f"{name} {dtype} context={self.context}"

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        batch: int = 8,
        context: int | None = None,
    ) -> LocalLM:
        """A folder, a hub name or a ``.gguf`` file; for ``None`` the packaged SmolLM2-135M-Instruct.

        A GGUF file is dequantised, to be trained and looked into; it takes the memory of the whole model in ``dtype``.

        Raises:
            ImportError: the extra ``llm`` or the packaged model is not installed.
            ValueError: no such model.
        """
        place = extras.packaged_smollm2() if path is None else path
        where, options = str(place), {}
        if where.endswith(".gguf"):
            where, options = str(Path(place).parent), {"gguf_file": Path(place).name}
        library = extras.transformers()
        try:
            tokenizer = library.AutoTokenizer.from_pretrained(where, **options)
            model = library.AutoModelForCausalLM.from_pretrained(
                where, dtype=dtype, attn_implementation="sdpa", **options
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"path {str(place)!r} is no causal language model that can be loaded: {error}") from error
        return cls(model.to(as_device(device)), tokenizer, name=model_identity(place), batch=batch, context=context)

    @property
    def dim(self) -> int:
        """D, the width of a hidden state."""
        return int(self.model.get_input_embeddings().weight.size(1))  # type: ignore[operator]

    @property
    def num_layers(self) -> int:
        """L, without the embeddings."""
        return int(self.model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings ``[..., D]`` of token ids ``[...]``."""
        return self.model.get_input_embeddings()(ids.to(self.device))  # type: ignore[operator]

    def forward(self, inputs_embeds: Tensor, mask: Tensor, keep: int = 0) -> tuple[Tensor, Tensor]:
        """Logits ``[B, T, V]`` (of the last ``keep`` tokens alone, unless 0) and last states ``[B, T, D]``.

        With gradients; ``mask`` is ``[B, T]``. With ``keep``, prompts longer than ``context`` lose their middle, T
        being ``context`` then; :attr:`ledger` counts them.

        Raises:
            ValueError: shapes that do not fit, or, beyond ``context``, no ``keep`` or one above half of it.
        """
        inputs_embeds, mask = self._fitting(inputs_embeds, mask, 0, keep)
        out = self.model(
            inputs_embeds=inputs_embeds.to(self.device, self._dtype),
            attention_mask=mask.to(self.device),
            position_ids=positions(mask.to(self.device)),
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=keep,
        )
        return out.logits, out.hidden_states[-1]

    @torch.no_grad()
    def hidden(
        self, texts: Sequence[str], layers: Sequence[int] = (-1,), pool: Literal["mean", "last"] = "mean"
    ) -> Tensor:
        """Float32 states ``[N, len(layers), D]`` on the CPU; zeros for a text without a word.

        Raises:
            ValueError: a layer that is not there, or another pool.
        """
        if pool not in ("mean", "last"):
            raise ValueError(f"pool must be 'mean' or 'last', got {pool!r}.")
        found = check_texts(texts)
        self._check_layers(layers)
        out = torch.zeros(len(found), len(layers), self.dim)
        full = [index for index, text in enumerate(found) if text.strip()]
        rows = [cut_middle(ids, self.context) for ids in prompt_tokens(self.tokenizer, [found[i] for i in full])]
        for part in self._batches(rows):
            ids, mask = pad_left([rows[i] for i in part], self._pad, self.device)
            states = self._states(ids, mask, layers)
            weight = mask.to(states.dtype)[:, None, :, None]
            pooled = states[:, :, -1] if pool == "last" else (states * weight).sum(2) / weight.sum(2)
            out[[full[i] for i in part]] = pooled.float().cpu()
        return out

    @torch.no_grad()
    def token_states(self, texts: Sequence[str], layers: Sequence[int] = (-1,)) -> TokenStates:
        """States of every token, in one batch, padded on the right; a text's end is kept before its middle.

        Raises:
            ValueError: a layer that is not there, or no texts.
        """
        found = check_texts(texts)
        self._check_layers(layers)
        if not found:
            raise ValueError("texts is empty; give at least one.")
        rows = [cut_middle(ids, self.context) for ids in prompt_tokens(self.tokenizer, found)]
        ids, mask = pad_left([row[::-1] for row in rows], self._pad, self.device)
        ids, mask = ids.flip(1), mask.flip(1)
        return TokenStates(ids.cpu(), mask.cpu(), self._states(ids, mask, layers).float().cpu())

    def label_ids(self, labels: Sequence[str]) -> list[list[int]]:
        """The tokens of each label as a continuation, the end token last; see :func:`prompts.label_tokens`."""
        return label_tokens(self.tokenizer, labels)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], labels: Sequence[str]) -> Tensor:
        """Log-likelihood ``[N, C]``, float32 on the CPU, of each label and its end after each prompt.

        Prompt and label are tokenised apart, so that all labels share the prompt's tokens. The sum over a label's
        tokens is a likelihood; to weigh long labels as short ones, divide by the lengths of :meth:`label_ids`.

        Raises:
            ValueError: labels that are blank, the same tokens, or longer than the context.
        """
        ids = self.label_ids(labels)
        rows = self._prompts(prompts, self._room(max(map(len, ids))))
        out = torch.zeros(len(rows), len(ids))
        for part in self._batches(rows):
            tokens, mask = pad_left([rows[i] for i in part], self._pad, self.device)
            out[part] = self._score(self.embed(tokens), mask, ids).float().cpu()
        return out

    def score_embeds(self, inputs_embeds: Tensor, mask: Tensor, labels: Sequence[str]) -> Tensor:
        """The same ``[B, C]`` for prompts ``[B, T, D]``, padded on the left or not at all, with gradients.

        Prompts that leave no room for the longest label lose their middle; :attr:`ledger` counts them.

        Raises:
            ValueError: shapes that do not fit, padding elsewhere; labels as in :meth:`score`.
        """
        ids = self.label_ids(labels)
        self._check_embeds(inputs_embeds, mask)
        if not bool(mask[:, -1].all()):
            raise ValueError("mask must end with 1 in every row: put the padding on the left of the prompts.")
        inputs_embeds, mask = self._fitting(inputs_embeds, mask, max(map(len, ids)), 1)
        return self._score(inputs_embeds.to(self.device, self._dtype), mask.to(self.device), ids)

    @torch.no_grad()
    def generate(self, prompts: Sequence[str], max_new_tokens: int = 32) -> list[str]:
        """What the model says next, taking the likeliest token each time, up to its end token.

        Raises:
            ValueError: no room for ``max_new_tokens``.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
        rows = self._prompts(prompts, self._room(max_new_tokens))
        out = [""] * len(rows)
        for part in self._batches(rows):
            ids, mask = pad_left([rows[i] for i in part], self._pad, self.device)
            told = self.model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
                pad_token_id=self._pad, eos_token_id=self.tokenizer.eos_token_id,
            )  # fmt: skip
            words = self.tokenizer.batch_decode(told[:, ids.size(1) :], skip_special_tokens=True)
            for index, text in zip(part, words, strict=True):
                out[index] = text
        return out

    def count(self, prompts: Sequence[str], labels: Sequence[str] = ()) -> Counts:
        """How many prompts are blank, and how many are cut to leave room for the longest of ``labels``."""
        found = check_texts(prompts, "prompts")
        room = self._room(max(map(len, self.label_ids(labels))) if labels else 0)
        lengths = [len(ids) for ids in prompt_tokens(self.tokenizer, found)]
        return Counts(len(found), sum(not text.strip() for text in found), sum(length > room for length in lengths))

    def _score(self, embeds: Tensor, mask: Tensor, labels: list[list[int]]) -> Tensor:
        together = label_log_likelihoods if reads_blocks(self.model.config) else one_by_one
        return together(self.model, embeds, mask, labels)

    def _states(self, ids: Tensor, mask: Tensor, layers: Sequence[int]) -> Tensor:
        """``[B, len(layers), T, D]``."""
        states = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions(mask),
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=1,
        ).hidden_states
        return torch.stack([states[layer] for layer in layers], dim=1)

    def _prompts(self, prompts: Sequence[str], room: int) -> list[list[int]]:
        """Tokens that fit; a prompt without any is a lone padding token, which predicts as if nothing was said."""
        rows = prompt_tokens(self.tokenizer, prompts)
        self.ledger.read(len(rows), sum(len(row) > room for row in rows))
        return [cut_middle(row, room) or [self._pad] for row in rows]

    def _batches(self, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices of rows of like length, ``batch`` at a time."""
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        for at in range(0, len(order), self.batch):
            yield order[at : at + self.batch]

    def _room(self, taken: int) -> int:
        if taken >= self.context:
            raise ValueError(f"{taken} tokens to follow leave no room for a prompt in a context of {self.context}.")
        return self.context - taken

    def _check_layers(self, layers: Sequence[int]) -> None:
        if not layers or not all(-self.num_layers - 1 <= layer <= self.num_layers for layer in layers):
            raise ValueError(f"layers must lie in 0..{self.num_layers} (or count from -1), got {list(layers)}.")

    def _fitting(self, embeds: Tensor, mask: Tensor, more: int, keep: int) -> tuple[Tensor, Tensor]:
        """Prompts that leave room for ``more`` tokens, their last ``keep`` among what is left of them."""
        self._check_embeds(embeds, mask)
        room, cut = self._room(more), 0
        if embeds.size(1) > room:
            if not 0 < keep <= room // 2:
                raise ValueError(f"inputs_embeds has {embeds.size(1)} tokens, there is room for {room}.")
            embeds, mask, cut = cut_embeds(embeds, mask, room)
        self.ledger.read(embeds.size(0), cut)
        return embeds, mask

    def _check_embeds(self, embeds: Tensor, mask: Tensor) -> None:
        if embeds.dim() != 3 or embeds.size(2) != self.dim or mask.shape != embeds.shape[:2]:
            raise ValueError(
                f"inputs_embeds must be [B, T, {self.dim}] and mask [B, T], got {list(embeds.shape)} and "
                f"{list(mask.shape)}."
            )
