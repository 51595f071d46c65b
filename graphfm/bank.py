"""Many adapted models of one pretrained network: the network in memory once, what each adds to it on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.adapters import store
from graphfm.adapters.handle import names
from graphfm.adapters.store import base_state
from graphfm.beside import base_of
from graphfm.bundle import CheckpointError, check_writable, read_bundle, refusing, write_bundle
from graphfm.fitted import Fitted, build_fitted, describe_fitted
from graphfm.foreign import bare_backbone
from graphfm.pretrained import Pretrained
from graphfm.prompts.base import Prompt

__all__ = ["AdapterBank"]

_STEM = "banked"


class AdapterBank:
    """Fitted models that share a pretrained network, by name.

    Of each model the folder keeps adapters, prompt, head, readout and the target's way into the network, not the
    network. That stays in memory, is never read again, and is bit by bit what it was after every call; while one call
    uses it, others wait.

    Args:
        pretrained: the base; its backbone is used as it is, where it is.
        folder: of the bank; made if it is not there. One that holds models already goes on.
        keep: how many models' own tensors stay in memory, those used last.
        prompts: classes of prompts of your own; those of :mod:`graphfm.prompts` are known.

    Raises:
        ValueError: an adapter is attached to the base already.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        folder: str | os.PathLike[str],
        *,
        keep: int = 32,
        prompts: Iterable[type[Prompt]] = (),
    ) -> None:
        self.backbone = pretrained.backbone
        attached = names(self.backbone)
        if attached:
            raise ValueError(f"the base has adapters of its own ({attached}); detach them first.")
        if keep < 0:
            raise ValueError(f"keep must not be negative, got {keep}.")
        self.folder, self.keep, self.prompts = check_writable(folder), keep, list(prompts)
        self.base = _hash(self.backbone)
        self._inner = store.fingerprint(bare_backbone(self.backbone))
        self._read: OrderedDict[str, tuple[dict[str, Any], dict[str, Tensor]]] = OrderedDict()
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"AdapterBank({self.folder}, {len(self.names())} models)"

    def names(self) -> list[str]:
        """Of the models in the folder, sorted."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{_STEM}.json"))

    def add(self, name: str, fitted: Fitted) -> Path:
        """Keep what ``fitted`` adds to the base, and return its folder; a model of that name is replaced.

        Args:
            name: of letters, digits, ``_`` and ``-``.
            fitted: what :func:`graphfm.adapt` made with an adapter, a prompt, a probe or prototypes.

        Raises:
            ValueError: a bad name; a backbone that is not the base (fine-tuned, of another checkpoint).
            OSError: the folder cannot be written.
        """
        folder = self._place(name)
        if _hash(base_of(fitted.backbone)) != self.base:
            raise ValueError(
                "the backbone of this model is not the bank's base: it was fine-tuned, or is of another "
                "checkpoint. The bank keeps what is trained beside a frozen base; use Fitted.save for others."
            )
        settings, tensors = describe_fitted(fitted)
        with self._lock:
            write_bundle(folder, _STEM, {**settings, "base": self.base}, tensors)
            self._read.pop(name, None)
        return folder

    def remove(self, name: str) -> None:
        """Forget a model and delete its folder.

        Raises:
            ValueError: there is none of that name.
        """
        with self._lock:
            self._check_there(name)
            self._read.pop(name, None)
            (self.folder / name / f"{_STEM}.json").unlink()  # the rest is no model without it, wherever one stops
            shutil.rmtree(self.folder / name)

    def predict(self, name: str, data: Data) -> Tensor:
        """Class probabilities ``[N, C]`` of all nodes by one model; see :meth:`Fitted.predict`.

        Raises:
            ValueError: there is no such model, or ``data`` does not fit it.
            CheckpointError: its files are damaged, or of another base.
        """
        with self._using(name) as fitted:
            return fitted.predict(data)

    def predict_many(self, requests: Sequence[tuple[str, Data]]) -> list[Tensor]:
        """Probabilities for several graphs, each by its own model, in the order they came.

        Graphs of one model are done one after the other, so each model is put in place once.

        Raises:
            ValueError: as :meth:`predict`; all names are looked at before any work is done.
            CheckpointError: likewise.
        """
        for name, _ in requests:
            self._check_there(name)
        places: dict[str, list[int]] = {}
        for place, (name, _) in enumerate(requests):
            places.setdefault(name, []).append(place)
        found: dict[int, Tensor] = {}
        for name, own in places.items():
            with self._using(name) as fitted:
                found |= {place: fitted.predict(requests[place][1]) for place in own}
        return [found[place] for place in range(len(requests))]

    def size(self, name: str) -> int:
        """Bytes on disk.

        Raises:
            ValueError: there is none of that name.
        """
        self._check_there(name)
        return sum(path.stat().st_size for path in (self.folder / name).iterdir())

    @contextlib.contextmanager
    def _using(self, name: str) -> Iterator[Fitted]:
        """The model on the base, and the base as it was afterwards."""
        with self._lock:
            settings, tensors = self._bundle(name)
            modes = {module: module.training for module in self.backbone.modules()}
            moving = [p for p in self.backbone.parameters() if p.requires_grad]
            folder = self.folder / name
            fitted: Fitted | None = None
            try:
                with refusing(folder, "banked model"):
                    fitted = build_fitted(settings, tensors, self.backbone, folder, self._inner, self.prompts)
                yield fitted
            finally:
                for handle in [] if fitted is None else fitted.adapters:
                    handle.detach()
                for module, mode in modes.items():
                    module.training = mode
                for parameter in moving:
                    parameter.requires_grad_(True)

    def _bundle(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        self._check_there(name)
        if name not in self._read:
            settings, tensors = read_bundle(self.folder / name, _STEM)
            if settings.get("base") != self.base:
                raise CheckpointError(
                    f"{self.folder / name} belongs to another base: load the network that it was trained on."
                )
            device = next(self.backbone.parameters()).device
            self._read[name] = settings, {k: v.to(device) for k, v in tensors.items()}
        self._read.move_to_end(name)
        found = self._read[name]
        while len(self._read) > self.keep:
            self._read.popitem(last=False)
        return found

    def _place(self, name: str) -> Path:
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"name must be of letters, digits, _ and -, got {name!r}.")
        return self.folder / name

    def _check_there(self, name: str) -> None:
        if not (self._place(name) / f"{_STEM}.json").is_file():
            raise ValueError(f"the bank has no model {name!r}; there are: {', '.join(self.names()) or 'none'}.")


def _hash(backbone: nn.Module) -> str:
    """Of every tensor of the base, running statistics included, whatever is attached to it."""
    found = hashlib.sha256()
    for name, value in sorted(base_state(bare_backbone(backbone)).items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
