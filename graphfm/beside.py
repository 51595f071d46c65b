"""What is trained beside a frozen network: an adapter in it, a prompt before it; put there, described, rebuilt."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from graphfm.adapters import store
from graphfm.adapters.attach import attach
from graphfm.adapters.handle import Handle, names
from graphfm.adapters.method import Method
from graphfm.bundle import CheckpointError
from graphfm.foreign import bare_backbone
from graphfm.methods import Recipe
from graphfm.prompts import store as stored
from graphfm.prompts.base import Prompt
from graphfm.prompts.prompted import Prompted, prompted

__all__ = ["base_of", "check_meant_for", "describe", "handles_of", "prompt_of", "put", "rebuild"]

_log = logging.getLogger(__name__)


def put(
    network: nn.Module, recipe: Recipe, seed: int, pretext: Sequence[Tensor] | None = None
) -> tuple[nn.Module, list[str]]:
    """Freeze ``network`` and put the recipe's adapter into it and its prompt before it.

    A prompt that composes tokens of pretext tasks takes those in ``pretext``, unless it is bound already.

    Returns:
        The network to call, and the names of the adapted weights.

    Raises:
        TypeError: no prompt, or a function that attaches an adapter and returns no handle.
        ValueError: an adapter or a prompt that does not fit.
    """
    base = bare_backbone(network)
    adapted: list[str] = []
    if recipe.adapter is not None:
        if isinstance(recipe.adapter, Method):
            handle = attach(base, recipe.adapter, misfits="skip", seed=seed)
        else:
            handle = recipe.adapter(base)
        if not isinstance(handle, Handle):
            raise TypeError(f"adapter: the function must return the handle that attach gave it, got {handle!r}.")
        adapted = sorted(handle.changes())
    if recipe.prompt is not None:
        network = under = prompted(network, copy.deepcopy(recipe.prompt), freeze=recipe.adapter is None)
        take: Any = getattr(under.prompt, "take", None)
        if take is not None and pretext is not None and not recipe.prompt.is_bound:
            take(pretext)
    return network, adapted


def check_meant_for(prompt: nn.Module | None, card: dict[str, Any]) -> None:
    """Warn where the card tells of a pretraining that the prompt is not meant for; a card may tell nothing."""
    wanted, objective = getattr(prompt, "meant_for", ()), card.get("objective")
    tasks = [task.split(" ")[0] for task in card.get("history", {}).get("tasks", {})]
    if wanted and objective is not None and not {objective, *tasks} & set(wanted):
        name, known = type(prompt).__name__, " or ".join(wanted)
        _log.warning("%s is meant for a model pretrained by %s; this one was by %s", name, known, objective)


def base_of(network: nn.Module) -> nn.Module:
    """The user's own network, without the prompt before it and the way edges are handed to it."""
    return bare_backbone(network.backbone if isinstance(network, Prompted) else network)


def prompt_of(network: nn.Module) -> Prompt | None:
    """The prompt before a network, or ``None``."""
    return network.prompt if isinstance(network, Prompted) else None


def handles_of(network: nn.Module) -> list[Handle]:
    """The adapters in a network."""
    base = base_of(network)
    return [Handle(base, name) for name in names(base)]


def describe(network: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Adapters and prompt, for a bundle: settings as JSON, and tensors."""
    handles, prompt = handles_of(network), prompt_of(network)
    settings: dict[str, Any] = {"adapters": [store.describe(handle) for handle in handles], "prompt": None}
    tensors = {f"adapters.{h.name}.{k}": v for h in handles for k, v in h.state_dict().items()}
    if prompt is not None:
        settings["prompt"] = stored.describe(prompt) | {"base": store.fingerprint(base_of(network))}
        tensors |= {f"prompt.{k}": v for k, v in prompt.state_dict().items()}
    return settings, tensors


def rebuild(
    network: nn.Module,
    settings: dict[str, Any],
    tensors: dict[str, Tensor],
    folder: Any,
    *,
    prompt: Prompt | None,
    base: str | None = None,
) -> nn.Module:
    """Put what :func:`describe` described into ``network``, in place, and before it.

    Args:
        network: with nothing in it.
        settings: those of the bundle.
        tensors: likewise.
        folder: named in errors.
        prompt: made by :func:`graphfm.prompts.store.of_bundle`.
        base: the fingerprint of ``network``, computed unless it is given.

    Raises:
        CheckpointError: an adapter or a prompt of another base, or that does not fit; then nothing is attached.
    """
    inner, adapters = bare_backbone(network), settings.get("adapters", [])
    stated = base
    if stated is None and (adapters or prompt is not None):
        stated = store.fingerprint(inner)
    if prompt is not None and settings["prompt"]["base"] != stated:
        raise CheckpointError("the prompt was trained before another base (other weights) than the one beside it.")
    _attach(adapters, tensors, inner, folder, str(stated))
    try:
        return network if prompt is None else prompted(network, prompt, freeze=not adapters)
    except Exception:
        for handle in handles_of(network):
            handle.detach()
        raise


def _attach(
    described: Iterable[dict[str, Any]], tensors: dict[str, Tensor], network: nn.Module, folder: Any, base: str
) -> None:
    """All adapters or, where one is refused, none."""
    done: list[Handle] = []
    try:
        for each in described:
            prefix = f"adapters.{each['name']}."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            done.append(store.rebuild(network, each, own, folder, base=base))
    except Exception:
        for handle in done:
            handle.detach()
        raise
