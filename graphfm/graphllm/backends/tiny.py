"""Language models small enough to train on the spot, over the words of the dataset at hand."""

from __future__ import annotations

import collections
import hashlib
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.device import as_device
from graphfm.graphllm.backends import extras
from graphfm.graphllm.backends.base import check_texts
from graphfm.graphllm.backends.causal import LocalLM
from graphfm.graphllm.backends.masking import masked_tokens
from graphfm.graphllm.backends.prompts import label_tokens, question
from graphfm.graphllm.backends.sentence import SentenceEncoder
from graphfm.graphllm.texts import readable

__all__ = ["tiny_bert", "tiny_llama", "word_tokenizer"]

_PAD, _UNK, _START, _END, _MASK = "<pad>", "<unk>", "<s>", "</s>", "<mask>"
_PARTS = re.compile(r"\w+|[^\w\s]")
_PLAIN = [*".,:;?!()[]<>/=\"'-0123456789", *"Question the classes are Which class is node of Answer".split()]


def word_tokenizer(texts: Sequence[str], labels: Sequence[str] = (), *, size: int = 4096, masked: bool = False) -> Any:
    """A tokenizer of transformers with a token for each word: those of the labels, then the most frequent of the texts.

    Case counts, punctuation stands alone, a text starts with ``<s>``, an unknown word is ``<unk>``. Ties in frequency
    go by the alphabet, so that the same texts give the same tokens. ``masked`` is for masked language models: there is
    a ``<mask>``, and a text ends with ``</s>``.

    Raises:
        ValueError: ``size`` has no room for the labels.
    """
    library = extras.transformers()
    tokenizers = extras.tokenizers()
    count = collections.Counter(word for text in check_texts(texts) for word in _PARTS.findall(text))
    wanted = [word for label in check_texts(labels, "labels") for word in _PARTS.findall(label)]
    special = [_PAD, _UNK, _START, _END, *([_MASK] if masked else [])]
    first = list(dict.fromkeys([*special, *wanted, *_PLAIN]))
    if len(first) > size:
        raise ValueError(f"size must be at least {len(first)}, for the labels and punctuation, got {size}.")
    common = sorted(count, key=lambda word: (-count[word], word))
    words = list(dict.fromkeys([*first, *common]))[:size]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, _UNK))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_PARTS.pattern), "removed", invert=True)
    inner.pre_tokenizer = split
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{_START} $A {_END}" if masked else f"{_START} $A",
        special_tokens=[(token, words.index(token)) for token in (_START, _END)],
    )
    names = {"cls_token": _START, "sep_token": _END, "mask_token": _MASK} if masked else {}
    return library.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=_PAD, unk_token=_UNK, bos_token=_START, eos_token=_END, **names
    )


def tiny_bert(
    texts: Sequence[str],
    labels: Sequence[str] = (),
    *,
    hidden: int = 32,
    layers: int = 2,
    context: int = 64,
    vocabulary: int = 4096,
    steps: int = 100,
    batch: int = 32,
    lr: float = 3e-3,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> SentenceEncoder:
    """A BERT (Devlin et al., 2019) of two layers, 32 wide, trained on the spot, as an encoder that averages its tokens.

    It stands in for a real encoder where methods that train one are tested, as :func:`tiny_llama` does for a causal
    model; what it can do is no evidence about language models. It learns to fill in masked words of ``texts``, of
    which it sees all that it is given, and no labels of nodes.

    Args:
        texts: to train on.
        labels: class names, whose words get tokens even where no text has them; an underscore is read as a space.
        hidden: width D, a multiple of 16.
        layers: number of layers.
        context: longest text, in tokens.
        vocabulary: most tokens, see :func:`word_tokenizer`.
        steps: of AdamW; 0 leaves the weights random.
        batch: texts a step.
        lr: largest learning rate; it falls to zero as a cosine does.
        seed: of weights, batches and masks.
        device: where to train and stay.

    Raises:
        ImportError: the extra ``llm`` is not installed.
        ValueError: sizes that cannot be, or nothing to train on.
    """
    if hidden < 16 or hidden % 16 or layers < 1 or steps < 0 or batch < 1 or context < 3:
        raise ValueError(
            "hidden must be a multiple of 16, layers and batch at least 1, steps at least 0, context at least 3; "
            f"got {hidden}, {layers}, {batch}, {steps}, {context}."
        )
    library, labels = extras.transformers(), readable(labels)
    tokenizer = word_tokenizer(texts, labels, size=vocabulary, masked=True)
    config = library.BertConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 16, max_position_embeddings=context, pad_token_id=tokenizer.pad_token_id,
        type_vocab_size=1, initializer_range=hidden**-0.5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    tokenizer.model_max_length = context
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = library.BertForMaskedLM(config).to(as_device(device))
        if steps:
            gaps = _gaps(tokenizer, texts, batch, torch.Generator().manual_seed(seed))
            _train(model, [gaps], steps, lr, pad=tokenizer.pad_token_id)
        whole = library.BertModel(config)
    whole.load_state_dict(model.bert.state_dict(), strict=False)
    with tempfile.TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        encoder = SentenceEncoder(folder, device=device)
    encoder.path, encoder.name = "tiny-bert", f"tiny-bert-{seed} {_digest(model)} max_tokens={encoder.max_tokens}"
    return encoder


def tiny_llama(
    texts: Sequence[str],
    labels: Sequence[str] = (),
    *,
    hidden: int = 64,
    layers: int = 2,
    context: int = 512,
    vocabulary: int = 4096,
    steps: int = 400,
    batch: int = 32,
    length: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> LocalLM:
    """A Llama (Touvron et al., 2023) of two layers, 64 wide, trained on the spot.

    It stands in for a real model where none can be had, so that methods which look inside one really train, in seconds.
    A quarter of its steps tell the next word of ``texts`` (all, without labels). The others answer a question as the
    predictors here ask it: a class name is put somewhere into a text, from which all other class names are taken out,
    and the answer is that name; without these exercises so small a model never looks back at what it was shown. It
    sees the texts of all nodes that it is given and no labels of nodes. What it can do is no evidence about language
    models, and results with it are marked as such.

    Args:
        texts: to train on; at least one with two words.
        labels: class names, whose words get tokens even where no text has them, and which are asked for as methods
            here write them, with a space for an underscore.
        hidden: width D, a multiple of 16.
        layers: L.
        context: longest sequence.
        vocabulary: most tokens, see :func:`word_tokenizer`.
        steps: of AdamW; 0 leaves the weights random.
        batch: windows or exercises a step.
        length: tokens a window, and most of a text in an exercise.
        lr: largest learning rate; it falls to zero as a cosine does.
        seed: of weights, windows and exercises.
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
    library, labels = extras.transformers(), readable(labels)
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
        random = torch.Generator().manual_seed(seed)
        kinds = [_windows(tokenizer, texts, batch, length, random)]
        if labels:
            kinds += [_exercises(tokenizer, texts, labels, batch, length, random)] * 3
        _train(model, kinds, steps, lr)
    lm.name = f"tiny-llama-{seed} {_digest(model)} context={lm.context}"
    return lm


Batch = tuple[Tensor, Tensor]
"""Token ids ``[B, T]``, padded on the right, and the ids to be told, -100 where nothing is."""


def _gaps(tokenizer: Any, texts: Sequence[str], batch: int, random: torch.Generator) -> Callable[[], Batch]:
    """Random texts with words masked out."""
    full = [text for text in texts if text.strip()]
    if not full:
        raise ValueError("texts hold no words to train on.")
    rows = [torch.tensor(ids) for ids in tokenizer(full, truncation=True)["input_ids"]]

    def draw() -> Batch:
        chosen = torch.randint(len(rows), (batch,), generator=random).tolist()
        ids = nn.utils.rnn.pad_sequence([rows[i] for i in chosen], True, tokenizer.pad_token_id)
        return masked_tokens(ids, tokenizer, random)

    return draw


def _windows(
    tokenizer: Any, texts: Sequence[str], batch: int, length: int, random: torch.Generator
) -> Callable[[], Batch]:
    """Random windows of all texts end to end, each closed by the end token; repeated where they are too short."""
    full = [text for text in texts if text.strip()]
    rows = tokenizer(full)["input_ids"] if full else []
    stream = [token for row in rows for token in [*row, tokenizer.eos_token_id]]
    if not stream:
        raise ValueError("texts hold no words to train on.")
    windows = torch.tensor(stream * -(-length // len(stream))).unfold(0, length, 1)

    def draw() -> Batch:
        ids = windows[torch.randint(len(windows), (batch,), generator=random)]
        return ids, ids

    return draw


def _exercises(
    tokenizer: Any, texts: Sequence[str], labels: Sequence[str], batch: int, length: int, random: torch.Generator
) -> Callable[[], Batch]:
    """Texts of at most ``length`` tokens into which a class name was put, the question, and that name as answer."""
    answers = label_tokens(tokenizer, labels)
    asked = tokenizer(question(labels), add_special_tokens=False)["input_ids"]
    taken = {token for answer in answers for token in answer}
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    rows = [[token for token in row if token not in taken][:length] for row in rows]

    def number(limit: int) -> int:
        return int(torch.randint(limit, (), generator=random))

    def draw() -> Batch:
        ids, told = [], []
        for _ in range(batch):
            row, answer = rows[number(len(rows))], answers[number(len(answers))]
            at = number(len(row) + 1)
            before = [tokenizer.bos_token_id, *row[:at], *answer[:-1], *row[at:], *asked]
            ids.append(torch.tensor(before + answer))
            told.append(torch.tensor([-100] * len(before) + answer))
        pad = nn.utils.rnn.pad_sequence
        return pad(ids, True, tokenizer.pad_token_id), pad(told, True, -100)

    return draw


def _train(
    model: nn.Module, kinds: Sequence[Callable[[], Batch]], steps: int, lr: float, pad: int | None = None
) -> None:
    """``steps`` of AdamW, on batches of each kind in turn; ``pad`` where the model looks both ways."""
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    device = next(model.parameters()).device
    model.train()
    for step in range(steps):
        ids, told = kinds[step % len(kinds)]()
        more = {"use_cache": False} if pad is None else {"attention_mask": (ids != pad).to(device)}
        loss = model(input_ids=ids.to(device), labels=told.to(device), **more).loss
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
