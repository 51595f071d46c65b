"""A causal language model small enough to train on the spot, over the words of the dataset at hand."""

from __future__ import annotations

import collections
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.device import as_device
from graphfm.graphllm.backends import extras
from graphfm.graphllm.backends.base import check_texts
from graphfm.graphllm.backends.causal import LocalLM

__all__ = ["tiny_llama", "word_tokenizer"]

_PAD, _UNK, _START, _END = "<pad>", "<unk>", "<s>", "</s>"
_PARTS = re.compile(r"\w+|[^\w\s]")
_PLAIN = list(".,:;?!()[]<>/=\"'-0123456789") + "Answer Question Category Text Neighbours node class the of is".split()


def word_tokenizer(texts: Sequence[str], labels: Sequence[str] = (), *, size: int = 4096) -> Any:
    """A tokenizer of transformers with a token for each word: those of the labels, then the most frequent of the texts.

    Case counts, punctuation stands alone, a text starts with ``<s>``, an unknown word is ``<unk>``. Ties in frequency
    go by the alphabet, so that the same texts give the same tokens.

    Raises:
        ValueError: ``size`` has no room for the labels.
    """
    library = extras.transformers()
    tokenizers = extras.tokenizers()
    count = collections.Counter(word for text in check_texts(texts) for word in _PARTS.findall(text))
    wanted = [word for label in check_texts(labels, "labels") for word in _PARTS.findall(label)]
    first = list(dict.fromkeys([_PAD, _UNK, _START, _END, *wanted, *_PLAIN]))
    if len(first) > size:
        raise ValueError(f"size must be at least {len(first)}, for the labels and punctuation, got {size}.")
    common = sorted(count, key=lambda word: (-count[word], word))
    words = list(dict.fromkeys([*first, *common]))[:size]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, _UNK))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_PARTS.pattern), "removed", invert=True)
    inner.pre_tokenizer = split
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{_START} $A", special_tokens=[(_START, words.index(_START))]
    )
    return library.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=_PAD, unk_token=_UNK, bos_token=_START, eos_token=_END
    )


def tiny_llama(
    texts: Sequence[str],
    labels: Sequence[str] = (),
    *,
    hidden: int = 64,
    layers: int = 2,
    context: int = 512,
    vocabulary: int = 4096,
    steps: int = 200,
    batch: int = 32,
    length: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> LocalLM:
    """A Llama (Touvron et al., 2023) of two layers, 64 wide, trained to tell the next word of ``texts``.

    It stands in for a real model where none can be had, so that methods which look inside one really train, in seconds.
    It sees the texts of all nodes that it is given and no labels of nodes; what it can do is no evidence about language
    models, and results with it are marked as such.

    Args:
        texts: to train on; at least one with two words.
        labels: class names, whose words get tokens even where no text has them.
        hidden: width D, a multiple of 16.
        layers: L.
        context: longest sequence.
        vocabulary: most tokens, see :func:`word_tokenizer`.
        steps: of AdamW, on random windows of the texts; 0 leaves the weights random.
        batch: windows a step.
        length: tokens a window.
        lr: largest learning rate; it falls to zero as a cosine does.
        seed: of weights and windows.
        device: where to train and stay.

    Raises:
        ImportError: the extra ``llm`` is not installed.
        ValueError: sizes that cannot be, or nothing to train on.
    """
    if hidden < 16 or hidden % 16 or layers < 1 or steps < 0 or batch < 1 or not 2 <= length <= context:
        raise ValueError(
            "hidden must be a multiple of 16, layers and batch at least 1, steps at least 0, length in [2, context]; "
            f"got {hidden}, {layers}, {batch}, {steps}, {length} (context {context})."
        )
    library = extras.transformers()
    tokenizer = word_tokenizer(texts, labels, size=vocabulary)
    config = library.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 16, num_key_value_heads=hidden // 16, max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = library.LlamaForCausalLM(config)
    lm = LocalLM(model, tokenizer, name=f"tiny-llama-{seed}", batch=64, context=context)
    model.to(as_device(device))
    if steps:
        _train(model, _stream(tokenizer, texts, length), (batch, length), steps, lr, seed)
    lm.name = f"tiny-llama-{seed} {_digest(model)} context={lm.context}"
    return lm


def _stream(tokenizer: Any, texts: Sequence[str], length: int) -> Tensor:
    """All texts end to end, each closed by the end token; repeated where they are shorter than a window."""
    full = [text for text in texts if text.strip()]
    rows = tokenizer(full)["input_ids"] if full else []
    stream = [token for row in rows for token in [*row, tokenizer.eos_token_id]]
    if not stream:
        raise ValueError("texts hold no words to train on.")
    return torch.tensor(stream * -(-length // len(stream)))


def _train(model: nn.Module, stream: Tensor, shape: tuple[int, int], steps: int, lr: float, seed: int) -> None:
    """``steps`` of AdamW, each on ``shape[0]`` windows of ``shape[1]`` tokens."""
    random = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    windows = stream.unfold(0, shape[1], 1)
    device = next(model.parameters()).device
    model.train()
    for _ in range(steps):
        ids = windows[torch.randint(len(windows), (shape[0],), generator=random)].to(device)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()


def _digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]
