"""Puts published weights into our backbones: `print(load_backbone(model, "k400.pyth"))`.

A file is recognised by the tensors in it, never by its name:

- MViT of PySlowFast (v1-B, v2-S, v2-B; q, k and v in one projection or three) and of torchvision;
- Hiera for video, supervised or MAE pre-training;
- ViT of VideoMAE and UMT, fine-tuned or pre-training;
- the backbone inside a checkpoint of our own detector, or anything above behind a prefix such as "module.".

Classifier heads and decoders are left out, tables of positions are interpolated to the model's size, and
anything else that does not fit is refused before the model is touched. Nothing in a file is executed.
"""

from __future__ import annotations

import argparse
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actloc_core.backbones.hiera import Hiera
from actloc_core.backbones.layers import resize_line, resize_plane
from actloc_core.backbones.mvit import MViT
from actloc_core.backbones.vit import ViT

State = dict[str, Tensor]

WRAPPERS = ("model_state", "model", "module", "state_dict", "model_state_dict")
"""Where files keep their weights: PySlowFast and Hiera, VideoMAE and we, DeepSpeed, others."""

FITS: dict[str, type[nn.Module]] = {
    "PySlowFast MViT": MViT,
    "torchvision MViT": MViT,
    "Hiera": Hiera,
    "Hiera MAE": Hiera,
    "VideoMAE ViT": ViT,
}
"""Layout of a file -> the backbone it is for."""

NOT_BODY = re.compile(r"head\.|decoder|mask_token|encoder_norm\.|multi_scale_fusion_heads\.")
BODY = re.compile(r"patch_embed|blocks|norm|pos_embed(?!_class)")
"""Left over, these would change what the backbone computes; a class token it does not carry would not."""

TORCHVISION = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^pos_encoding\.class_token$", "cls_token"),
        (r"^pos_encoding\.(spatial|temporal|class)_pos$", r"pos_embed_\1"),
        (r"\.attn\.project\.0\.", ".attn.proj."),
        (r"\.attn\.pool_([qkv])\.pool\.", r".attn.pool_\1."),
        (r"\.attn\.pool_([qkv])\.norm_act\.0\.", r".attn.norm_\1."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
        (r"^(blocks\.\d+)\.project\.", r"\1.proj."),
    )
)
"""torchvision's names -> ours (torchvision/models/video/mvit.py; mlp.1 and mlp.2 have no tensors)."""


class CheckpointError(ValueError):
    """These weights cannot be used: the message says which file, why, and what to do."""


@dataclass(frozen=True)
class Report:
    """What became of a checkpoint. `str` of it is one line; the names are the model's."""

    source: str
    layout: str
    loaded: tuple[str, ...]
    """Tensors of the model that now have the file's values, `resized` ones included."""
    resized: tuple[str, ...]
    """Tables of positions that were interpolated to the model's size."""
    left_out: tuple[str, ...]
    """Heads and decoders, by the file's names."""
    missing: tuple[str, ...]
    """Tensors of the model that stay as initialised: the final norm, where pre-training has none."""
    unexpected: tuple[str, ...]
    """Other tensors the model has no place for, such as the class token where it carries none."""

    def __str__(self) -> str:
        parts = (name.partition(".")[0] for name in self.left_out)
        return (
            f"{self.source}: {self.layout}, {len(self.loaded)} tensors loaded; "
            f"resized: {_brief(self.resized)}; left out: {_brief(parts)}; "
            f"missing: {_brief(self.missing)}; unexpected: {_brief(self.unexpected)}"
        )


def load_backbone(model: nn.Module, source: str | Path | Mapping[str, Any]) -> Report:
    """Loads the weights of a file, or of a mapping as `torch.load` returns it, into `model`.

    model: an MViT, Hiera or ViT of any input size, on any device.
    Raises CheckpointError, with `model` unchanged, where the file cannot be read or the weights are
    not for this backbone; OSError where the file cannot be opened.
    """
    name = "the given state" if isinstance(source, Mapping) else str(source)
    held = find_weights(source if isinstance(source, Mapping) else read(Path(source)), name)
    body, left_out = _split_off_heads(held)
    layout = _layout(body, left_out, name)
    if not isinstance(model, FITS[layout]):
        raise CheckpointError(
            f"{name} holds weights of a {layout}, the model is a {type(model).__name__}: "
            f"build a {FITS[layout].__name__} or take another file"
        )
    given = _our_names(body, layout)
    own = model.state_dict()
    fitting = {key: _fitted(key, given[key], own[key].shape) for key in own if key in given}
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    wrong = [
        f"{key}: {_shape(given[key])}, model {_shape(own[key])}" for key in fitting if fitting[key] is None
    ]
    wrong += [f"{key}: none, model {_shape(own[key])}" for key in missing if not _may_miss(key, layout)]
    wrong += [f"{key}: {_shape(given[key])}, model none" for key in unexpected if BODY.match(key)]
    if wrong:
        raise CheckpointError(
            f"{name} ({layout}) does not fit this {type(model).__name__}, and nothing was loaded; build the "
            f"variant it is of. {len(wrong)} tensors differ, file and model:\n  " + "\n  ".join(wrong)
        )
    loaded = {key: tensor for key, tensor in fitting.items() if tensor is not None}
    model.load_state_dict(loaded, strict=False)
    return Report(
        source=name,
        layout=layout,
        loaded=tuple(loaded),
        resized=tuple(key for key in loaded if given[key].shape != own[key].shape),
        left_out=tuple(left_out),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
    )


def read(path: Path) -> Any:
    """What a PyTorch file holds, on the CPU, built from tensors and plain containers only.

    Raises CheckpointError where it is truncated, damaged, no checkpoint at all, or holds other objects.
    """
    zipped = zipfile.is_zipfile(path)  # all but the files of torch before 1.6, which have no checksums
    try:
        # torch does not look at them: a flipped bit would be a wrong weight without a word.
        if zipped:
            with zipfile.ZipFile(path) as parts:
                if (wrong := parts.testzip()) is not None:
                    raise ValueError(f"its part {wrong} is not what its checksum says")
        # VideoMAE's files carry their command line, a Namespace: a container as plain as a dict.
        # Mapped files are read where tensors are used, so an optimizer's state costs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # garbage fails in as many ways as there are bytes
        if isinstance(error, OSError) and error.filename is not None:
            raise  # no such file, no permission: nothing was read yet
        said = str(error).strip()
        if foreign := re.search(r"GLOBAL (\S+)", said):
            raise CheckpointError(
                f"{path} holds a {foreign[1]} beside its tensors, which is not unpickled here. If you "
                "trust the file, keep its weights alone: load it with weights_only=False and torch.save "
                "the part that maps names to tensors"
            ) from error
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is no readable PyTorch checkpoint "
            f"({type(error).__name__}: {said.splitlines()[0] if said else 'empty'}). The download may have "
            "stopped early or saved a web page: compare its size with the publisher's and fetch it again"
        ) from error


def find_weights(held: Any, name: str) -> State:
    """The mapping of names to tensors in what a file held: itself, or under one of WRAPPERS.

    Raises CheckpointError where there is none.
    """
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{name} holds a {type(held).__name__}, not a mapping of names to tensors")
    for inner in (*(held[key] for key in WRAPPERS if isinstance(held.get(key), Mapping)), held):
        weights = {key: value for key, value in inner.items() if isinstance(value, Tensor)}
        if any(key.endswith(".weight") for key in weights):
            if "pool_first: true" in str(held.get("cfg", "")).lower():
                raise CheckpointError(
                    f"{name} is of an MViT trained with MVIT.POOL_FIRST, which pools before it projects: "
                    "the same tensors, another function. There is no such model here"
                )
            return weights
    raise CheckpointError(
        f"{name} has no weights: expected tensors by name, or a mapping under one of {', '.join(WRAPPERS)}; "
        f"found {', '.join(map(str, list(held)[:8])) or 'nothing'}"
    )


def _split_off_heads(weights: State) -> tuple[State, list[str]]:
    """The backbone's tensors without their prefix, and the names of all heads and decoders.

    The prefix ("module.", "encoder.", "backbone.") is whatever stands before the patch embedding.
    """
    stem = re.compile(r"(.*?)(?:patch_embed|conv_proj)\.")
    prefix = next((match[1] for match in map(stem.match, weights) if match), "")
    body: State = {}
    left_out: list[str] = []
    for key, value in weights.items():
        inner = key.removeprefix(prefix)
        if not key.startswith(prefix) or NOT_BODY.match(inner):
            left_out.append(key)
        else:
            body[inner] = value
    return body, left_out


def _layout(body: State, left_out: list[str], name: str) -> str:
    """Which of FITS these tensors are, by the names that only it has."""
    if "conv_proj.weight" in body:
        return "torchvision MViT"
    if "blocks.0.attn.pool_k.weight" in body:
        return "PySlowFast MViT"
    if "blocks.0.attn.q_bias" in body:
        return "VideoMAE ViT"
    if "pos_embed_spatial" in body and "blocks.0.attn.qkv.bias" in body:
        return "Hiera MAE" if any("encoder_norm." in key for key in left_out) else "Hiera"
    raise CheckpointError(
        f"{name} holds no weights we know: MViT of PySlowFast or torchvision, Hiera for video, ViT of "
        f"VideoMAE or UMT. It begins with {', '.join(list(body)[:6])}"
    )


def _our_names(body: State, layout: str) -> State:
    """The same tensors under the names, and for the class token in the shapes, that our models use."""
    if layout == "torchvision MViT":
        return dict(_from_torchvision(key, value) for key, value in body.items())
    if layout == "PySlowFast MViT":
        return _one_projection(body)
    if layout == "VideoMAE ViT":
        return {re.sub(r"^fc_norm\.", "norm.", key): value for key, value in body.items()}
    return body


def _from_torchvision(key: str, value: Tensor) -> tuple[str, Tensor]:
    in_stem = key.startswith("pos_encoding.")
    for pattern, ours in TORCHVISION:
        key = pattern.sub(ours, key)
    return key, value.view(1, -1, value.shape[-1]) if in_stem else value


def _one_projection(body: State) -> State:
    """PySlowFast's files of 2021 and those with SEPARATE_QKV: attn.q, .k and .v become attn.qkv."""
    joined: State = {}
    for key, value in body.items():
        match = re.fullmatch(r"(.+\.attn\.)[qkv](\.(?:weight|bias))", key)
        parts = [f"{match[1]}{x}{match[2]}" for x in "qkv"] if match else []
        if not match or any(part not in body for part in parts):
            joined[key] = value
        elif key == parts[0]:
            joined[f"{match[1]}qkv{match[2]}"] = torch.cat([body[part] for part in parts])
    return joined


def _fitted(key: str, value: Tensor, shape: torch.Size) -> Tensor | None:
    """`value` in the model's shape: as it is, interpolated where it is a table of positions, or None."""
    if value.shape == shape:
        return value
    if value.dim() != len(shape) or value.shape[-1] != shape[-1]:
        return None
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    kind = key.rpartition(".")[2]
    if kind.startswith("rel_pos_"):  # (2n - 1, d)
        return resize_line(value[None], shape[0])[0]
    if kind == "pos_embed_temporal":  # (1, t, D)
        return resize_line(value, shape[1])
    if kind == "pos_embed_spatial":  # (1, n n, D): all published models are square
        side, new_side = math.isqrt(value.shape[1]), math.isqrt(shape[1])
        if side**2 == value.shape[1] and new_side**2 == shape[1]:
            return resize_plane(value, (side, side), (new_side, new_side))
    return None


def _may_miss(key: str, layout: str) -> bool:
    # Hiera's pre-training has only a norm over the fused scales, which is not this one.
    return layout == "Hiera MAE" and key.startswith("norm.")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _brief(names: Iterable[str]) -> str:
    """Names with the blocks' numbers as *, each once with its count."""
    counts = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return ", ".join(key if n == 1 else f"{key} x{n}" for key, n in counts.items()) or "none"
