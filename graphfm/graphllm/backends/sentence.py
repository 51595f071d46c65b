"""A text encoder from a folder or a hub name: sentence-transformers, or any encoder of transformers, mean-pooled."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.device import as_device
from graphfm.graphllm.backends import extras
from graphfm.graphllm.backends.base import Counts, check_texts
from graphfm.graphllm.backends.identity import model_identity
from graphfm.nn.dropout import QuickDropout

__all__ = ["SentenceEncoder"]


class SentenceEncoder:
    """Sentence-BERT (Reimers & Gurevych, 2019) and its kin; by default the packaged all-MiniLM-L6-v2, 384 wide.

    A folder with ``modules.json`` is used as its makers meant it (pooling, normalisation, length); of any other
    encoder the last hidden states are averaged over the tokens. Texts are tokenised once, sorted by their number of
    tokens and read ``batch`` at a time, so that little is spent on padding. A text without a word gives zeros; one
    that is too long loses its end; :meth:`count` says how many there are of either.

    Args:
        path: a folder or a hub name; the packaged model for ``None``.
        device: see :func:`graphfm.device.as_device`.
        batch: texts at a time; else 8 on a CPU, where padding costs more than calls do, and 128 on a GPU.
        max_tokens: cut texts after that many tokens, if that is shorter than the model's own limit.
        precision: ``"bfloat16"`` reads, and trains, with products of matrices in that type; weights and vectors stay
            float32. On processors with such instructions it is faster, and vectors move a little
            (``benchmarks/graphllm.py`` says how much of either). Its vectors are cached apart.

    Raises:
        ImportError: the extra ``llm`` or the packaged model is not installed.
        ValueError: no such model, a size below 1, or another precision.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        device: torch.device | str | None = None,
        batch: int | None = None,
        max_tokens: int | None = None,
        precision: str = "float32",
    ) -> None:
        if (batch is not None and batch < 1) or (max_tokens is not None and max_tokens < 3):
            raise ValueError(f"batch must be at least 1 and max_tokens at least 3, got {batch} and {max_tokens}.")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}.")
        self.precision = precision
        self.path, self.device = path or extras.packaged_minilm(), as_device(device)
        self.batch = batch or (8 if self.device.type == "cpu" else 128)
        library = extras.sentence_transformers()
        try:
            self.model: nn.Module = library.SentenceTransformer(str(self.path), device=str(self.device))
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"path {str(self.path)!r} is no encoder that can be loaded: {error}") from error
        self.model.eval()
        if precision == "bfloat16" and self.device.type == "cpu":
            self._attend_by_products()
        limit = getattr(self.model, "max_seq_length", None) or self.tokenizer.model_max_length
        self.max_tokens = min(limit, max_tokens or limit)
        identity = model_identity(self.path)
        if path is None:  # the package's folder is called "model"
            identity = f"all-MiniLM-L6-v2-{identity.rpartition('-')[2]}"
        self.name = f"{identity} max_tokens={self.max_tokens}"
        if precision != "float32":
            self.name += f" {precision}"

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self.model.tokenizer

    @property
    def dim(self) -> int:
        """The width of a vector."""
        model: Any = self.model  # the name of this changed with version 6
        width = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        return int(width())

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[N, D]`` on the CPU, without gradients.

        Raises:
            TypeError: something that is no string.
        """
        found = check_texts(texts)
        vectors = torch.zeros(len(found), self.dim)
        full = [index for index, text in enumerate(found) if text.strip()]
        ids = self._ids([found[index] for index in full])
        order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
        self.model.eval()
        with torch.inference_mode():
            for at in range(0, len(order), self.batch):
                part = order[at : at + self.batch]
                vectors[[full[i] for i in part]] = self._read([ids[i] for i in part]).float().cpu()
        return vectors

    @property
    def num_layers(self) -> int:
        """L: layers run from 0 (the embeddings) to L, or -1 for the last."""
        return int(self._layered().config.num_hidden_layers)

    @property
    def state_dim(self) -> int:
        """The width of a layer's states, which a dense layer behind them may make another than that of the vectors."""
        return int(self._layered().config.hidden_size)

    def hidden(self, texts: Sequence[str], layers: Sequence[int] = (-1,)) -> Tensor:
        """States of layers, a text's tokens averaged, ``[N, len(layers), D]`` on the CPU; zeros without a word.

        Raises:
            TypeError: something that is no string.
            ValueError: a layer that there is none of.
        """
        found, most = check_texts(texts), self.num_layers
        if not layers or not all(-most - 1 <= layer <= most for layer in layers):
            raise ValueError(f"layers must lie in 0..{most} (or count from -1), got {list(layers)}.")
        full = [index for index, text in enumerate(found) if text.strip()]
        ids = self._ids([found[index] for index in full])
        order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
        model = self._layered().eval()
        out = torch.zeros(len(found), len(layers), self.state_dim)
        with torch.inference_mode(), self.autocast():
            for at in range(0, len(order), self.batch):
                part = order[at : at + self.batch]
                rows = self.tokenizer.pad({"input_ids": [ids[i] for i in part]}, return_tensors="pt").to(self.device)
                states = model(**rows, output_hidden_states=True).hidden_states
                seen = rows["attention_mask"].unsqueeze(-1)
                means = [(states[layer].float() * seen).sum(1) / seen.sum(1) for layer in layers]
                out[[full[i] for i in part]] = torch.stack(means, dim=1).cpu()
        return out

    def _layered(self) -> Any:
        """The encoder of transformers inside."""
        for module in self.model.modules():
            ours = type(module).__module__.startswith("transformers")  # SentenceTransformer shows a config as well
            if ours and hasattr(getattr(module, "config", None), "num_hidden_layers"):
                return module
        raise ValueError(f"{self.name!r} has no layers of transformers to read.")

    def _attend_by_products(self) -> None:
        """Plain products and a softmax: in bfloat16 on a CPU torch's fused attention is slower."""
        for module in self.model.modules():
            choose: Any = getattr(module, "set_attn_implementation", None)
            if choose is not None:
                choose("eager")

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[N, D]`` on the device, in one batch and with gradients, to fine-tune ``model``; no zeros here."""
        return self._read(self._ids(check_texts(texts)))

    def count(self, texts: Sequence[str]) -> Counts:
        """How many of the texts hold no word, and how many are longer than ``max_tokens``."""
        found = check_texts(texts)
        lengths = [len(ids) for ids in self.tokenizer(found, verbose=False)["input_ids"]] if found else []
        return Counts(
            len(found),
            empty=sum(not text.strip() for text in found),
            cut=sum(length > self.max_tokens for length in lengths),
        )

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """The context in which the model is called, for those who call its layers themselves: precision and dropout."""
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with half, QuickDropout():
            yield

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []

    def _read(self, ids: list[list[int]]) -> Tensor:
        features = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        with self.autocast():
            return self.model(dict(features))["sentence_embedding"].float()
