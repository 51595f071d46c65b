"""What message passing multiplies by: CSR adjacencies, their products, and sums and softmax over sorted segments."""

from graphfm.nn.adjacency import Adjacency, as_adjacency
from graphfm.nn.attention import attend, pair_scores
from graphfm.nn.dropout import QuickDropout, dropout
from graphfm.nn.pool import max_pool, mean_pool, sum_pool
from graphfm.nn.spmm import segment_softmax, segment_sum, spmm

__all__ = [
    "Adjacency",
    "QuickDropout",
    "as_adjacency",
    "attend",
    "dropout",
    "max_pool",
    "mean_pool",
    "pair_scores",
    "segment_softmax",
    "segment_sum",
    "spmm",
    "sum_pool",
]
