"""PATTON's encoder: a BERT that reads, beside its own tokens, one that stands for the node's neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphfm.nn import Adjacency
from graphfm.nn.adjacency import neighbours

__all__ = ["NetworkEncoder", "WordHead", "bert_of", "padded", "some_neighbours"]

_KINDS = ("bert", "roberta", "xlm-roberta", "camembert")


class NetworkEncoder(nn.Module):
    """A BERT with a token for the neighbours in every layer but the first (PATTON, 2305.12268, section 3.1).

    In layer l > 0 an attention with the node's [CLS] state as query, and its own and its neighbours' [CLS] states as
    keys and values, gives a token z; the layer's attention sees z beside the node's own tokens, and z itself is made
    anew in the next layer. Neighbours are read by themselves, without neighbours of their own. As in the authors' code
    one such attention serves all layers, without a map of its output, and the first layer is plain.

    Args:
        bert: a BERT or RoBERTa of transformers, two layers at least; it becomes a part of this module.

    Raises:
        ValueError: another kind of model, or a single layer.
    """

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert
        config: Any = bert.config
        if len(self.layers) < 2:
            raise ValueError("the encoder must have at least two layers: the first sees no neighbours.")
        self.heads = int(config.num_attention_heads)
        width, self.rate = int(config.hidden_size), float(config.attention_probs_dropout_prob)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        for linear in (self.query, self.key, self.value):
            nn.init.normal_(linear.weight, std=float(config.initializer_range))
            nn.init.zeros_(linear.bias)
        self.to(next(bert.parameters()).device)

    @property
    def layers(self) -> nn.ModuleList:
        """Of the BERT."""
        bert: Any = self.bert
        return bert.encoder.layer

    @property
    def word_embeddings(self) -> Tensor:
        """``[V, D]``."""
        bert: Any = self.bert
        return bert.embeddings.word_embeddings.weight

    def new(self) -> list[nn.Parameter]:
        """The attention over neighbours, which no BERT comes with."""
        return [p for linear in (self.query, self.key, self.value) for p in linear.parameters()]

    def alone(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[CLS] states ``[B, L - 1, D]`` after each layer but the last, without neighbours.

        Args:
            ids: ``[B, T]``, the first of each row being [CLS].
            mask: ``[B, T]``, 1 where there is a token.
        """
        hidden, shown = self._embedded(ids), _additive(mask, self.query.weight.dtype)
        found = []
        for layer in list(self.layers)[:-1]:
            hidden = _only(layer(hidden, shown))
            found.append(hidden[:, 0])
        return torch.stack(found, dim=1)

    def forward(self, ids: Tensor, mask: Tensor, around: Tensor, present: Tensor) -> Tensor:
        """Last states ``[B, T, D]`` of nodes beside their neighbours.

        Args:
            ids: ``[B, T]``.
            mask: ``[B, T]``, 1 where there is a token.
            around: ``[B, K, L - 1, D]`` what :meth:`alone` gives of each neighbour.
            present: ``[B, K]`` bool, which of them there are.
        """
        own = torch.ones_like(mask[:, :1])
        plain, beside = (_additive(m, around.dtype) for m in (mask, torch.cat([own, mask], dim=1)))
        hidden = _only(self.layers[0](self._embedded(ids), plain))
        for number, layer in enumerate(list(self.layers)[1:]):
            z = self.gather(hidden[:, 0], around[:, :, number], present)
            hidden = _only(layer(torch.cat([z.unsqueeze(1), hidden], dim=1), beside))[:, 1:]
        return hidden

    def gather(self, own: Tensor, around: Tensor, present: Tensor) -> Tensor:
        """``[B, D]``: attention of ``own`` ``[B, D]`` over itself and ``around`` ``[B, K, D]``."""
        seen = torch.cat([own.unsqueeze(1), around], dim=1)
        q, k, v = self._split(self.query(own).unsqueeze(1)), self._split(self.key(seen)), self._split(self.value(seen))
        allowed = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)[:, None, None]
        rate = self.rate if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=rate)
        return found.transpose(1, 2).reshape(own.shape)

    def _embedded(self, ids: Tensor) -> Tensor:
        bert: Any = self.bert
        return bert.embeddings(input_ids=ids)

    def _split(self, x: Tensor) -> Tensor:
        """``[B, M, D] -> [B, heads, M, D / heads]``."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class WordHead(nn.Module):
    """Scores of all words at a token: BERT's, ``LN(gelu(W h + b)) E^T + c`` with E the embeddings of the words.

    Args:
        width: D.
        words: size of the vocabulary.
        eps: of the layer normalisation.
    """

    def __init__(self, width: int, words: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.map, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps)
        self.bias = nn.Parameter(torch.zeros(words))

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """``[M, D]`` and ``[V, D]`` to ``[M, V]``."""
        return F.linear(self.norm(F.gelu(self.map(hidden))), embeddings, self.bias)


def bert_of(model: nn.Module) -> nn.Module:
    """The BERT within an encoder.

    Raises:
        ValueError: there is none.
    """
    for module in model.modules():
        if getattr(getattr(module, "config", None), "model_type", None) in _KINDS and hasattr(module, "embeddings"):
            return module
    raise ValueError(f"the encoder must be one of {', '.join(_KINDS)}: PATTON changes what its layers read.")


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids ``[B, T]``, padded on the right, and the mask ``[B, T]``, 1 where there is a token."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, pad)
    length = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.size(1)) < length.unsqueeze(1)).long()


def some_neighbours(
    adj: Adjacency,
    nodes: Tensor,
    number: int,
    *,
    without: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Up to ``number`` neighbours of each of ``nodes`` ``[B]``, drawn at random and without repetition.

    Args:
        adj: undirected, on the CPU.
        nodes: whose.
        number: K.
        without: ``[B]`` one node for each that must not be drawn.
        generator: of the draw; torch's own state if not given.

    Returns:
        The neighbours ``[B, K]``, 0 where there are fewer, and which there are ``[B, K]``.
    """
    places, owner = neighbours(adj.rowptr, nodes)
    found = adj.col[places].long()
    if without is not None:
        kept = found != without[owner]
        found, owner = found[kept], owner[kept]
    luck = torch.rand(owner.numel(), generator=generator, dtype=torch.float64)
    order = torch.argsort(owner + luck)
    found, owner = found[order], owner[order]
    count = torch.bincount(owner, minlength=nodes.numel())
    rank = torch.arange(owner.numel()) - (torch.cumsum(count, 0) - count)[owner]
    kept = rank < number
    out = torch.zeros(nodes.numel(), number, dtype=torch.long)
    out[owner[kept], rank[kept]] = found[kept]
    return out, torch.arange(number) < count.unsqueeze(1)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """``[B, T]`` of 1 and 0 to ``[B, 1, 1, T]`` of 0 and very little, as layers of transformers take it."""
    return (1 - mask[:, None, None].to(dtype)) * torch.finfo(dtype).min


def _only(found: Any) -> Tensor:
    """What a layer returns: its states, in a tuple in older versions of transformers."""
    return found[0] if isinstance(found, tuple) else found
