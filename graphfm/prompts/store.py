"""Prompts on disk: safetensors and JSON, with a fingerprint of the base they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.adapters.store import fingerprint
from graphfm.bundle import CheckpointError, read_bundle, refusing, write_bundle
from graphfm.names import find
from graphfm.prompts.base import Prompt

__all__ = ["build", "describe", "load", "of_bundle", "save"]

_STEM = "prompt"
_LARGEST = 1_000_000


def describe(prompt: Prompt) -> dict[str, Any]:
    """Class, arguments and widths of a bound prompt, as JSON; its tensors are its ``state_dict``.

    Raises:
        ValueError: a prompt that is not bound.
    """
    if not prompt.is_bound:
        raise ValueError("the prompt is not bound to a network, so there is nothing to save.")
    return {"class": type(prompt).__name__, "arguments": prompt.arguments(), "sizes": prompt.sizes}


def build(described: dict[str, Any], state: dict[str, Tensor], known: Iterable[type[Prompt]] = ()) -> Prompt:
    """The prompt that :func:`describe` described.

    Args:
        described: what it gave.
        state: the tensors.
        known: classes of your own; those of this package are known.

    Raises:
        CheckpointError: an unknown class, tensors that do not fit.
    """
    name, sizes = described["class"], described["sizes"]
    classes: dict[str, Any] = {cls.__name__: cls for cls in known}
    if name not in classes:
        try:
            classes[name] = find("prompts", name) if str(name).isidentifier() else None
        except ValueError as error:
            raise CheckpointError(f"the checkpoint holds a {name!r}: {error}") from error
    if not isinstance(classes[name], type) or not issubclass(classes[name], Prompt):
        raise CheckpointError(f"the checkpoint holds a {name!r}, which is no prompt known here.")
    widths = [sizes["in_channels"], sizes["out_channels"], *sizes["layers"], *sizes["messages"]]
    if any(type(width) is not int or width > _LARGEST for width in widths):
        raise CheckpointError(f"the widths {sizes} of {name!r} are absurd.")
    with torch.device("meta"):  # a lie about sizes costs nothing
        made = classes[name](**described["arguments"]).bind(**sizes)
    expected = {k: tuple(v.shape) for k, v in made.state_dict().items()}
    if expected != {k: tuple(v.shape) for k, v in state.items()}:
        raise CheckpointError(f"the tensors of {name!r} do not fit its arguments {described['arguments']}.")
    made.load_state_dict(state, assign=True)
    return made


def of_bundle(
    settings: dict[str, Any],
    tensors: dict[str, Tensor],
    num_classes: int | None = None,
    known: Iterable[type[Prompt]] = (),
) -> tuple[Prompt | None, list[type[nn.Module]]]:
    """The prompt that lies in a fitted model's bundle, and the class of the head that it prescribes, if any.

    Args:
        settings: under ``prompt`` what :func:`describe` gave, or nothing.
        tensors: those of the prompt are ``prompt.*``.
        num_classes: C; ``None`` where no head of classes stands on it.
        known: classes of your own.

    Raises:
        CheckpointError: see :func:`build`.
    """
    if settings.get("prompt") is None:
        return None, []
    state = {k.removeprefix("prompt."): v for k, v in tensors.items() if k.startswith("prompt.")}
    prompt = build(settings["prompt"], state, known)
    if num_classes is None:
        return prompt, []
    with torch.device("meta"):
        head = prompt.head(num_classes)
    return prompt, [] if head is None else [type(head)]


def save(prompt: Prompt, folder: str | os.PathLike[str], backbone: nn.Module) -> Path:
    """Write a prompt and the fingerprint of the backbone that it was trained for; returns the folder.

    Raises:
        ValueError: a prompt that is not bound.
        OSError: the folder cannot be written.
    """
    write_bundle(folder, _STEM, {**describe(prompt), "base": fingerprint(backbone)}, dict(prompt.state_dict()))
    return Path(folder)


def load(
    folder: str | os.PathLike[str], backbone: nn.Module, known: Iterable[type[Prompt]] = (), *, check: bool = True
) -> Prompt:
    """The prompt that :func:`save` wrote.

    Args:
        folder: of the prompt.
        backbone: that it is for.
        known: classes of your own.
        check: refuse another backbone than the one it was trained for.

    Raises:
        CheckpointError: a damaged folder, another backbone.
    """
    settings, tensors = read_bundle(folder, _STEM)
    with refusing(folder, "prompt"):
        if check and settings["base"] != fingerprint(backbone):
            raise CheckpointError(
                f"{folder} holds a prompt for another backbone (other weights); check=False uses it all the same."
            )
        return build(settings, tensors, known)
