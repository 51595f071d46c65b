"""One pretraining run: its networks, its place in the epoch, and how it is kept and taken up again."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.checkpoint import CheckpointError, read_bundle, refusing, write_bundle
from graphfm.data.subgraphs import Subgraphs
from graphfm.fingerprint import options
from graphfm.foreign import bare_backbone
from graphfm.joined import JoinedGraph
from graphfm.sampling import epoch_batches, make_batch

__all__ = ["PretrainingStopped", "TrainingRun"]

_log = logging.getLogger(__name__)
_EXPLOSION = 1e6  # times the loss at the beginning
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")

Folder = str | os.PathLike[str]


class PretrainingStopped(RuntimeError):
    """Training ended early: the loss is NaN, infinite or exploding, or the process was asked to stop."""


class TrainingRun:
    """The state of one pretraining run.

    Args:
        joined: the sources.
        samples: what is learned from.
        home: ``[S]`` domain of each sample.
        backbone: to be trained in place.
        objective: bound to the backbone, to be trained in place.
        device: where.
        settings: ``seed``, ``batch_size``, ``lr``, ``weight_decay``; the others only tell one run from another.
        inputs: what tells the graphs and their unifier from others.
    """

    def __init__(
        self,
        joined: JoinedGraph,
        samples: Subgraphs,
        home: Tensor,
        backbone: nn.Module,
        objective: nn.Module,
        device: torch.device,
        settings: dict[str, Any],
        inputs: dict[str, Any],
    ) -> None:
        self.samples, self.home, self.settings, self.device, self.inputs = samples, home, settings, device, inputs
        self.joined, self.coordinators = joined, joined.coordinators
        self.backbone, self.objective = backbone.to(device).train(), objective.to(device).train()
        modules: list[nn.Module] = [self.backbone, self.objective]
        if self.coordinators is not None:
            modules.append(self.coordinators.to(device))
        self.modules = nn.ModuleList(modules)
        self.optimizer = torch.optim.Adam(
            self.modules.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"], fused=True
        )
        self.x = joined.x.to(device)
        self.epoch = 0
        self.step = 0
        self.losses: list[float] = []  # mean loss of each finished epoch
        self.parts = torch.zeros(0, device=device)  # loss of each step of the epoch under way
        self.last_good: str | None = None
        self.spent = 0.0  # seconds, over all processes that worked on this run
        self._since = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent on this run, by this process and those before it."""
        return self.spent + time.perf_counter() - self._since

    def one_epoch(self, stop: threading.Event, checkpoint: Folder | None) -> float:
        """Go through the samples once (or through what is left of the epoch) and return the mean loss.

        Raises:
            PretrainingStopped: a loss or weights that cannot be gone on with; ``stop`` was set.
        """
        batches = self._batches()
        if self.step == 0:
            self.parts = torch.zeros(len(batches), device=self.device)
        for step in range(self.step, len(batches)):
            self._one_step(step, batches)
            self.step = step + 1
            if stop.is_set():
                self.leave(checkpoint)
        self._check_all(batches)
        mean = float(self.parts.mean())
        self.losses.append(mean)
        self.epoch, self.step = self.epoch + 1, 0
        _log.info("epoch %d: loss %.4f", self.epoch, mean)
        return mean

    def _batches(self) -> list[Tensor]:
        return epoch_batches(self.home, self.settings["batch_size"], self.settings["seed"], self.epoch)

    def _one_step(self, step: int, batches: list[Tensor]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective(self.backbone, make_batch(self.joined, self.samples, batches[step], self.x)).sum()
        self.parts[step] = loss.detach()
        # A GPU is not asked for every loss: that would stall it. Its losses are looked at once an epoch.
        if self.device.type == "cpu" and not self._is_sane(float(loss.detach()), float(self.parts[0])):
            self._stop_at(step, batches, weights_are_good=True)
        loss.backward()
        self.optimizer.step()

    def _is_sane(self, loss: float, first: float) -> bool:
        """Finite, and within 1e6 times the first epoch's loss (in that epoch: its first batch's), or 1e6 if larger."""
        reference = self.losses[0] if self.losses else first
        return math.isfinite(loss) and abs(loss) <= _EXPLOSION * max(1.0, abs(reference))

    def _check_all(self, batches: list[Tensor]) -> None:
        """Look at the losses so far of this epoch, and at the weights that the last step left."""
        parts = self.parts[: self.step].tolist()
        for step, loss in enumerate(parts):
            if not self._is_sane(loss, parts[0]):
                self._stop_at(step, batches, weights_are_good=False)
        if not self._weights_are_finite():
            self._stop(
                "the weights are no longer finite after",
                self.step - 1,
                batches,
                torch.unique(self.home[batches[self.step - 1]]).tolist(),
            )

    def _weights_are_finite(self) -> bool:
        floats = [v for v in self.modules.state_dict().values() if v.is_floating_point()]
        return bool(torch.stack([torch.isfinite(v).all() for v in floats]).all())

    def _stop_at(self, step: int, batches: list[Tensor], *, weights_are_good: bool) -> None:
        domains = torch.unique(self.home[batches[step]]).tolist()
        if weights_are_good:
            guilty = [d for d in domains if not self._alone_is_sane(batches[step], d)]
            domains = guilty or domains
        self._stop(f"the loss is {float(self.parts[step]):.4g} in", step, batches, domains)

    @torch.no_grad()
    def _alone_is_sane(self, batch: Tensor, domain: int) -> bool:
        try:
            loss = self.objective(
                self.backbone, make_batch(self.joined, self.samples, batch[self.home[batch] == domain], self.x)
            ).sum()
        except Exception:  # part of a batch may be more than an objective bargained for
            return True
        return self._is_sane(float(loss), float(self.parts[0]))

    def _stop(self, what: str, step: int, batches: list[Tensor], domains: list[int]) -> None:
        names = ", ".join(self.joined.names[d] for d in domains)
        kept = f"the last good checkpoint is {self.last_good}" if self.last_good else "no checkpoint was written"
        raise PretrainingStopped(
            f"{what} epoch {self.epoch + 1}, batch {step + 1} of {len(batches)} "
            f"({'domain' if len(domains) == 1 else 'domains'}: {names}); {kept}. "
            f"Lower lr ({self.settings['lr']}) or look at the features there."
        )

    def leave(self, checkpoint: Folder | None) -> None:
        """Keep the state and end.

        Raises:
            PretrainingStopped: always.
        """
        if checkpoint is None:
            raise PretrainingStopped("stopped by SIGTERM; no checkpoint folder was given, so nothing was kept.")
        self._check_all(self._batches())
        self.save(checkpoint)
        place = f"after batch {self.step} of epoch {self.epoch + 1}" if self.step else f"after epoch {self.epoch}"
        raise PretrainingStopped(f"stopped by SIGTERM {place}; go on from {checkpoint} with resume=True.")

    def save(self, folder: Folder) -> None:
        """Write everything that the rest of the run depends on.

        Raises:
            OSError: the folder cannot be written; what was there before stays whole.
        """
        tensors = {f"module.{k}": v for k, v in self.modules.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": state[k] for k in _MOMENTS}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        tensors["parts"] = self.parts
        settings = {
            "run": self._identity(),
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
        }
        write_bundle(folder, "training", settings, tensors)
        self.last_good = self._place(folder)

    def restore(self, folder: Folder) -> None:
        """Go on from what :meth:`save` wrote; starts afresh where nothing was saved yet.

        Raises:
            CheckpointError: a damaged state, or one of another run.
        """
        if not (Path(folder) / "training.json").exists():
            _log.info("%s holds no training state: starting from the beginning", folder)
            return
        settings, tensors = read_bundle(folder, "training")
        with refusing(folder, "training state"):
            mine = json.loads(json.dumps(self._identity()))
            differ = sorted(k for k in mine.keys() | settings["run"].keys() if settings["run"].get(k) != mine.get(k))
            if differ:
                raise CheckpointError(
                    f"{folder} belongs to another run (it differs in {', '.join(differ)}); give another folder, or "
                    "resume=False to begin anew."
                )
            self._place_from(settings)
            self._take(tensors)
        if settings.get("threads") != torch.get_num_threads():
            _log.warning("resumed with another number of threads: sums may round otherwise than before")
        self.last_good = self._place(folder)

    def _place_from(self, settings: dict[str, Any]) -> None:
        epoch, step, losses = settings["epoch"], settings["step"], [float(v) for v in settings["losses"]]
        batches = len(self._batches())
        if type(epoch) is not int or type(step) is not int or len(losses) != epoch or not 0 <= step <= batches:
            raise ValueError(f"epoch {epoch!r}, step {step!r} of {batches} and {len(losses)} losses do not fit")
        if epoch > self.settings["epochs"]:
            raise CheckpointError(
                f"the state has {epoch} epochs behind it, epochs is {self.settings['epochs']}; give more."
            )
        self.epoch, self.step, self.losses, self.spent = epoch, step, losses, float(settings["seconds"])

    def _take(self, tensors: dict[str, Tensor]) -> None:
        """Put the tensors where they belong, after all shapes and types were found to be right."""
        expected = {f"module.{k}": v for k, v in self.modules.state_dict().items()}
        expected["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            expected["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        if self.epoch or self.step:
            for place, weight in enumerate(self.modules.parameters()):
                if f"optimizer.{place}.step" in tensors:  # a parameter that gets no gradient has no moments
                    expected |= {f"optimizer.{place}.{k}": weight for k in _MOMENTS[1:]}
                    expected[f"optimizer.{place}.step"] = torch.zeros(())
            expected["parts"] = torch.zeros(len(self._batches()))
        else:
            expected["parts"] = torch.zeros(0)
        wrong = [k for k in expected if k not in tensors or not _alike(expected[k], tensors[k])]
        wrong += sorted(tensors.keys() - expected.keys())
        if wrong:
            raise ValueError(f"tensors that are missing, left over or of another shape: {wrong[:4]}")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, i, name = key.split(".")
                state.setdefault(int(i), {})[name] = value
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.modules.load_state_dict({k.removeprefix("module."): v for k, v in tensors.items() if k[:7] == "module."})
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.parts = tensors["parts"].to(self.device)

    def _place(self, folder: Folder) -> str:
        return f"{folder} (epoch {self.epoch}{f', batch {self.step} of the next' if self.step else ''})"

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to be of this run; more epochs are welcome."""
        settings = {k: v for k, v in self.settings.items() if k != "epochs"}
        return (
            settings
            | self.inputs
            | {
                "backbone": options(bare_backbone(self.backbone)),
                "objective": options(self.objective),
                "coordinators": None if self.coordinators is None else repr(self.coordinators),
                "sources": self.joined.names,
                "device": self.device.type,
            }
        )


def _alike(mine: Tensor, other: Tensor) -> bool:
    return mine.shape == other.shape and mine.dtype == other.dtype
