"""PATTON: a language model that is pretrained on a graph of texts, neighbours within its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.alignment.network_encoder import NetworkEncoder, WordHead, bert_of, padded, some_neighbours
from graphfm.graphllm.backends.masking import masked_tokens
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.texts import adjacency, node_texts, num_classes
from graphfm.graphllm.training import validation_score
from graphfm.graphllm.tuned import device_of, fit_batches, tuned_copy
from graphfm.nn import Adjacency
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.sentence import SentenceEncoder

__all__ = ["PATTON", "pair_loss"]


def pair_loss(left: Tensor, right: Tensor) -> Tensor:
    """``- mean_i log softmax_j(h_i . g_j)[i]``: of the right ends of a batch, which is that of each left end (eq. 6).

    Args:
        left: ``[B, D]``.
        right: ``[B, D]``, each the other end of an edge.
    """
    return F.cross_entropy(left @ right.t(), torch.arange(left.size(0), device=left.device))


class PATTON(Supervised):
    """A network-contextualised BERT, pretrained by masked words and masked nodes, then a classifier (2305.12268).

    In every layer but the first, an attention over the [CLS] states of some neighbours gives a token that the node's
    own tokens attend to (:class:`~graphfm.graphllm.alignment.network_encoder.NetworkEncoder`). Pretraining, on edges
    and without labels: words masked out of both ends are to be filled in, neighbours seen (network-contextualised
    masked language model), and the other end is to be told from those of the batch by the product of the [CLS] states
    (masked node prediction, which the paper reduces to this). Then a linear layer on [CLS] and all weights learn the
    classes by cross-entropy; the pass that is best on validation nodes is kept.

    Trained: a copy of the encoder, the attention over neighbours, the head for words, the classifier; nothing is
    frozen, and what is given stays as it was. Small here: ``steps`` batches of ``batch`` edges, where the paper
    pretrains on millions; the head for words starts anew and reads with the embeddings of the words; each neighbour's
    words are masked once a step. The other end of an edge is never among the neighbours that are shown, else it would
    tell itself. Texts are read as far as the encoder does (GLBench cuts them to 32 tokens for the classes).

    Published settings: GLBench's learning rate (``run_pretrain.sh`` and ``nc_class_train_cora.sh``).

    Args:
        tunable: an encoder whose ``model`` holds a BERT or RoBERTa, with ``tokenizer``, ``max_tokens`` and
            ``autocast``.
        neighbours: most neighbours of a node that are read, drawn anew each time.
        steps: of pretraining.
        batch: edges a step of pretraining; nodes a step of classification are twice that.
        word_weight: of the masked words, beside the masked nodes.
        lm_lr: learning rate of the encoder, in AdamW.
        head_lr: learning rate of what starts anew: the attention over neighbours, the head for words, the classifier.
        epochs: passes over the training nodes, at most.
        patience: passes without a better validation score after which it ends.
        seed: of weights, batches, masks and neighbours.
        device: not used: the encoder stays where it is.
    """

    needs = ("tunable",)
    family = "alignment"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lm_lr": (5e-5,)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lm_lr": (1e-5,)}

    def __init__(
        self,
        tunable: SentenceEncoder,
        *,
        neighbours: int = 5,
        steps: int = 100,
        batch: int = 8,
        word_weight: float = 1.0,
        lm_lr: float = 5e-5,
        head_lr: float = 1e-3,
        epochs: int = 10,
        patience: int = 2,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        if neighbours < 1 or batch < 2:
            raise ValueError(f"neighbours must be at least 1 and batch at least 2, got {neighbours} and {batch}.")
        self.tunable, self.neighbours, self.steps, self.batch = tunable, neighbours, steps, batch
        self.word_weight, self.lm_lr, self.head_lr = word_weight, lm_lr, head_lr
        self.epochs, self.patience = epochs, patience

    def fit(self, data: Data, split: Split) -> PATTON:
        """Pretrain on all edges, then learn the classes on ``split.train``; the best is kept on ``split.val``.

        Raises:
            ValueError: a graph without edges, or an encoder that is no BERT or has no mask token.
        """
        split.check(int(data.num_nodes or 0))
        encoder = tuned_copy(self.tunable)
        self.where = device_of(encoder)
        with isolated_rng(self.seed, self.where):
            self.lm = NetworkEncoder(bert_of(encoder.model))
            words, width = self.lm.word_embeddings.shape
            self.words = WordHead(width, words).to(self.where)
            self.head = nn.Linear(width, num_classes(data)).to(self.where)
            self.train_only({"lm": self.lm, "words": self.words, "head": self.head})
            adj, rows = adjacency(data), self._rows(data)
            self._pretrain(rows, adj)
            self._classify(rows, adj, data.y, split)
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[N, C]``; the neighbours that are read are drawn by the seed."""
        return self._logits(self._rows(data), adjacency(data), torch.arange(int(data.num_nodes or 0))).softmax(1)

    def pretraining_loss(self, rows: list[list[int]], adj: Adjacency, edges: Tensor) -> Tensor:
        """``MNP + weight (NMLM of left ends + NMLM of right ends)`` of ``edges`` ``[2, B]``."""
        nodes, partner = edges.flatten(), edges.flip(0).flatten()
        around, present = some_neighbours(adj, nodes, self.neighbours, without=partner)
        ids, mask = padded([rows[i] for i in nodes.tolist()], self._pad)
        shown, told = masked_tokens(ids, self.tunable.tokenizer)
        hidden = self._hidden(rows, shown, mask, around, present, masked=True)
        loss = pair_loss(*hidden[:, 0].split(edges.size(1)))
        for states, answer in zip(hidden.split(edges.size(1)), told.split(edges.size(1)), strict=True):
            loss = loss + self.word_weight * self._word_loss(states, answer.to(self.where))
        return loss

    @property
    def _pad(self) -> int:
        return int(self.tunable.tokenizer.pad_token_id)

    def _rows(self, data: Data) -> list[list[int]]:
        """The tokens of each text, once for all."""
        tokenizer, limit = self.tunable.tokenizer, self.tunable.max_tokens
        return tokenizer(node_texts(data), truncation=True, max_length=limit)["input_ids"]

    def _pretrain(self, rows: list[list[int]], adj: Adjacency) -> None:
        edges = adj.edge_index.cpu()
        edges = edges[:, edges[0] < edges[1]]
        if not edges.numel():
            raise ValueError(
                "data has no edges to pretrain on; PATTON learns what a text has to do with its neighbours."
            )
        drawn = torch.randint(edges.size(1), (self.steps * self.batch,))
        fit_batches(
            [self.lm, self.words],
            self._groups(self.words),
            lambda chosen: self.pretraining_loss(rows, adj, edges[:, chosen]),
            drawn,
            batch=self.batch,
            epochs=1,
        )

    def _classify(self, rows: list[list[int]], adj: Adjacency, y: Tensor, split: Split) -> None:
        def loss(nodes: Tensor) -> Tensor:
            around, present = some_neighbours(adj, nodes, self.neighbours)
            ids, mask = padded([rows[i] for i in nodes.tolist()], self._pad)
            hidden = self._hidden(rows, ids, mask, around, present, masked=False)
            return F.cross_entropy(self.head(hidden[:, 0]), y[nodes].to(self.where))

        fit_batches(
            [self.lm, self.head],
            self._groups(self.head),
            loss,
            split.train,
            batch=2 * self.batch,
            epochs=self.epochs,
            validate=(lambda: validation_score(self._logits(rows, adj, split.val), y[split.val]))
            if split.val.numel()
            else None,
            patience=self.patience,
        )

    def _groups(self, head: nn.Module) -> list[dict[str, Any]]:
        """What is pretrained by others takes small steps, what is new larger ones."""
        old = [p for p in self.lm.bert.parameters() if p.requires_grad]
        return [{"params": old, "lr": self.lm_lr}, {"params": [*self.lm.new(), *head.parameters()], "lr": self.head_lr}]

    def _hidden(
        self, rows: list[list[int]], ids: Tensor, mask: Tensor, around: Tensor, present: Tensor, *, masked: bool
    ) -> Tensor:
        """Last states ``[B, T, D]`` of centres ``ids`` ``[B, T]``; a neighbour of several is read once."""
        once, where = around[present].unique(return_inverse=True)
        place = torch.zeros_like(around).masked_scatter(present, where)
        if not once.numel():
            once = around[:1, 0]  # nobody has a neighbour: any node's states fill the places that nobody looks at
        other, seen = padded([rows[i] for i in once.tolist()], self._pad)
        if masked:
            other, _ = masked_tokens(other, self.tunable.tokenizer)
        with self.tunable.autocast():
            states = self.lm.alone(other.to(self.where), seen.to(self.where))
            beside = states[place.to(self.where)]
            return self.lm(ids.to(self.where), mask.to(self.where), beside, present.to(self.where)).float()

    def _word_loss(self, hidden: Tensor, told: Tensor) -> Tensor:
        chosen = told != -100
        scores = self.words(hidden[chosen], self.lm.word_embeddings)
        return F.cross_entropy(scores, told[chosen]) if bool(chosen.any()) else hidden.sum() * 0.0

    @torch.no_grad()
    def _logits(self, rows: list[list[int]], adj: Adjacency, nodes: Tensor) -> Tensor:
        """``[M, C]`` on the CPU: neighbours by the seed, texts of like length together, each neighbour read once."""
        around, present = some_neighbours(
            adj, nodes, self.neighbours, generator=torch.Generator().manual_seed(self.seed)
        )
        once, where = around[present].unique(return_inverse=True)
        place = torch.zeros_like(around).masked_scatter(present, where)
        states = torch.zeros(max(once.numel(), 1), len(self.lm.layers) - 1, self.head.in_features)
        for part in _by_length(rows, once):
            ids, mask = padded([rows[i] for i in once[part].tolist()], self._pad)
            with self.tunable.autocast():
                states[part] = self.lm.alone(ids.to(self.where), mask.to(self.where)).float().cpu()
        out = torch.zeros(nodes.numel(), self.head.out_features)
        for part in _by_length(rows, nodes):
            ids, mask = padded([rows[i] for i in nodes[part].tolist()], self._pad)
            beside = states[place[part]].to(self.where)
            with self.tunable.autocast():
                hidden = self.lm(ids.to(self.where), mask.to(self.where), beside, present[part].to(self.where))
            out[part] = self.head(hidden[:, 0].float()).cpu()
        return out


def _by_length(rows: list[list[int]], nodes: Tensor, size: int = 32) -> tuple[Tensor, ...]:
    """Places in ``nodes``, in parts whose texts are of like length."""
    length = torch.tensor([len(rows[i]) for i in nodes.tolist()])
    return torch.argsort(length, stable=True).split(size) if nodes.numel() else ()
