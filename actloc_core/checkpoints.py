"""Load published weights into the backbones: `print(load_backbone(model, "k400.pyth"))`.

The layout of a file is recognised by its tensors, never by its name:

- MViT of PySlowFast (v1-B, v2-S, v2-B; q, k and v in one projection or three), torchvision and pytorchvideo;
- Hiera for video, supervised or MAE pre-training;
- ViT of VideoMAE and UMT, fine-tuned or pre-training, also in Hugging Face's names, .bin or .safetensors;
- the backbone in a checkpoint of our own detector, or any of these behind a prefix such as "module.".

Classifier heads and decoders are left out and position embeddings are interpolated to the model's size. Any
other mismatch is refused before the model is changed. Nothing in a file is executed.
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
"""Keys of the weights in a file: of PySlowFast and Hiera, VideoMAE and this project, DeepSpeed, others."""

BACKBONES: dict[str, type[nn.Module]] = {
    "PySlowFast MViT": MViT,
    "torchvision MViT": MViT,
    "pytorchvideo MViT": MViT,
    "Hiera": Hiera,
    "Hiera MAE": Hiera,
    "VideoMAE ViT": ViT,
    "Hugging Face VideoMAE": ViT,
}
"""Layout of a file -> the class of backbone that it fits."""

SOMETHING_ELSE = (
    (
        rb"\s*<(!doctype html|html|head|body)",
        "a web page",
        "fetch it again, as a browser would",
    ),
    (
        rb"version https://git-lfs",
        "a Git LFS pointer",
        "run git lfs pull in its repository, or fetch it again",
    ),
    (rb"\x1f\x8b", "gzip", "unpack it with gunzip"),
    (rb"\x89HDF\r\n", "an HDF5 file, perhaps of Keras", "weights of PyTorch are needed"),
    (rb"\s*[\[{]", "JSON, such as a configuration", "the weights are in another file"),
    (rb"MATLAB 5\.0 MAT-file", "a MATLAB file", "weights of PyTorch are needed"),
    (rb"\x93NUMPY", "an array of numpy.save", "weights of PyTorch are needed"),
    (rb"(?:404|403|not found|access denied)", "the text of a server's error", "fetch it again"),
)
"""First bytes of files that are no checkpoints: what they are, and what to do."""

HEADS = re.compile(
    r"head\.|decoder|mask_token|encoder_norm\.|multi_scale_fusion_heads\.|classifier\.|encoder_to_decoder\."
)
"""Tensors of heads and decoders, which are left out."""
ESSENTIAL = re.compile(r"patch_embed|blocks|norm|pos_embed(?!_class)")
"""Tensors that may not be left over: without them the backbone would compute another function."""

PYTORCHVIDEO = (
    (r"^patch_embed\.patch_model\.", "patch_embed.proj."),
    (r"^cls_positional_encoding\.", ""),
    (r"^norm_embed\.", "norm."),
)
"""pytorchvideo's names -> PySlowFast's. (pytorchvideo/models/vision_transformers.py)"""

HUGGING_FACE = (
    (r"^(?:videomae\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(?:videomae\.)?encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^(?:videomae\.)?layernorm\.", "norm."),
    (r"\.attention\.attention\.(?:query\.bias|q_bias)$", ".attn.q_bias"),
    (r"\.attention\.attention\.(?:value\.bias|v_bias)$", ".attn.v_bias"),
    (r"\.attention\.attention\.([qkv])(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
)
"""The names of VideoMAE in transformers (models/videomae/modeling_videomae.py) -> the original ones."""

OTHERS = (
    (r"^(?:\w+\.)?encoder\.layer\.\d+\.", "Hugging Face's transformers, of a model other than VideoMAE"),
    (r"^(?:cls_head|roi_head)\.", "MMAction2"),
    (r"^s[1-5]\.pathway", "PySlowFast's ResNets"),
    (r"^blocks\.\d+\.(?:multipathway|res_blocks)", "pytorchvideo's ResNets"),
)
"""Names that tell whose a file is that no backbone here can load."""

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
"""torchvision's names -> names here (torchvision/models/video/mvit.py; mlp.1 and mlp.2 have no tensors)."""


class CheckpointError(ValueError):
    """Weights that cannot be used. The message names the file, the reason and what to do."""


@dataclass(frozen=True)
class Report:
    """Result of loading a checkpoint, by the model's names. `str` of it is one line."""

    source: str
    layout: str
    loaded: tuple[str, ...]
    """Tensors of the model that have the file's values, including the resized ones."""
    resized: tuple[str, ...]
    """Position embeddings that were interpolated to the model's size."""
    left_out: tuple[str, ...]
    """Tensors of heads and decoders, by the file's names."""
    missing: tuple[str, ...]
    """Tensors of the model that keep their initialisation: the final norm, which pre-training lacks."""
    unexpected: tuple[str, ...]
    """Other tensors that the model lacks, such as a class token."""

    def __str__(self) -> str:
        parts = (name.partition(".")[0] for name in self.left_out)
        return (
            f"{self.source}: {self.layout}, {len(self.loaded)} tensors loaded; "
            f"resized: {_brief(self.resized)}; left out: {_brief(parts)}; "
            f"missing: {_brief(self.missing)}; unexpected: {_brief(self.unexpected)}"
        )


def load_backbone(model: nn.Module, source: str | Path | Mapping[str, Any]) -> Report:
    """Load the weights of a file, or of a mapping as `torch.load` returns it, into `model`.

    model: an MViT, Hiera or ViT of any input size, on any device.
    Raises CheckpointError, with `model` unchanged, where the file cannot be read or the weights are
    not for this backbone; OSError where the file cannot be opened.
    """
    name = "the given state" if isinstance(source, Mapping) else str(source)
    weights = find_weights(source if isinstance(source, Mapping) else read(Path(source)), name)
    body, left_out, layout = _in_our_names(weights, name)
    if not isinstance(model, BACKBONES[layout]):
        raise CheckpointError(
            f"{name} holds weights of a {layout}, the model is a {type(model).__name__}: "
            f"build a {BACKBONES[layout].__name__} or use another file"
        )
    given = _rename(body, layout)
    own = model.state_dict()
    resized = {key: _resize(key, given[key], own[key].shape) for key in own if key in given}
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    mismatches = [
        f"{key}: {_shape(given[key])}, model {_shape(own[key])}" for key in resized if resized[key] is None
    ]
    mismatches += [f"{key}: none, model {_shape(own[key])}" for key in missing if not _may_miss(key, layout)]
    mismatches += [f"{key}: {_shape(given[key])}, model none" for key in unexpected if ESSENTIAL.match(key)]
    if mismatches:
        raise CheckpointError(
            f"{name} ({layout}) does not fit this {type(model).__name__}, and nothing was loaded; build the "
            f"variant of the file. {len(mismatches)} tensors differ, file and model:\n  "
            + "\n  ".join(mismatches)
        )
    loaded = {key: tensor for key, tensor in resized.items() if tensor is not None}
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
    """Read a PyTorch file of tensors and plain containers, on the CPU.

    Raises CheckpointError for a file that is truncated, damaged, no checkpoint, or holds other objects.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _read_safetensors(path)
    for pattern, what, advice in SOMETHING_ELSE:
        if re.match(pattern, head, re.IGNORECASE):
            raise CheckpointError(f"{path} is {what}, whatever its name says: {advice}")
    zipped = zipfile.is_zipfile(path)  # files of torch before 1.6 are not and have no checksums
    try:
        # torch ignores the checksums: a flipped bit would silently be a wrong weight.
        if zipped:
            with zipfile.ZipFile(path) as parts:
                if (wrong := parts.testzip()) is not None:
                    raise ValueError(f"its part {wrong} does not match its checksum")
        # VideoMAE's files hold their command line, a Namespace: as harmless a container as a dict.
        # Of a memory-mapped file only the tensors in use are read, so an optimizer's state costs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # damaged files raise errors of any type
        if isinstance(error, OSError) and error.filename is not None:
            raise  # missing file or no permission
        reason = str(error).strip()
        if foreign := re.search(r"GLOBAL (\S+)", reason):
            raise CheckpointError(
                f"{path} holds a {foreign[1]} beside its tensors, which is not unpickled here. If you "
                "trust the file, extract its weights: load it with weights_only=False and torch.save "
                "the part that maps names to tensors"
            ) from error
        # torch advises to load what it refuses with weights_only=False, which executes what is in it.
        said = "" if "weights_only" in reason else f": {reason.splitlines()[0] if reason else 'empty'}"
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is no readable PyTorch checkpoint "
            f"({type(error).__name__}{said}). The download may "
            "have stopped early or saved a web page: compare its size with the publisher's and fetch it again"
        ) from error


def _read_safetensors(path: Path) -> State:
    """Read Hugging Face's format, which holds tensors alone. Raises as `read`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        size = path.stat().st_size
        raise CheckpointError(
            f"{path} ({size:,} bytes) is no readable safetensors file ({error}); fetch it again"
        ) from error


def find_weights(content: Any, name: str) -> State:
    """Find the mapping of names to tensors in a file's content: itself, or under one of WRAPPERS.

    Raises CheckpointError where there is none.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{name} holds a {type(content).__name__}, not a mapping of names to tensors")
    for inner in (*(content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content):
        weights = {key: value for key, value in inner.items() if isinstance(value, Tensor)}
        if any(key.endswith(".weight") for key in weights):
            if "pool_first: true" in str(content.get("cfg", "")).lower():
                raise CheckpointError(
                    f"{name} is of an MViT trained with MVIT.POOL_FIRST, which pools before it projects: "
                    "the same tensors, another function. Use weights of a model without it"
                )
            return weights
    raise CheckpointError(
        f"{name} has no weights: expected tensors by name, or a mapping under one of {', '.join(WRAPPERS)}; "
        f"got {', '.join(map(str, list(content)[:8])) or 'an empty mapping'}"
    )


def _split_off_heads(weights: State) -> tuple[State, list[str]]:
    """Separate the backbone's tensors, without their prefix, from heads and decoders, by name.

    The prefix ("module.", "encoder.", "backbone.") is the one of the patch embedding.
    """
    stem = re.compile(r"(.*?)(?:patch_embed|conv_proj)\.")
    prefix = next((match[1] for match in map(stem.match, weights) if match), "")
    body: State = {}
    left_out: list[str] = []
    for key, value in weights.items():
        inner = key.removeprefix(prefix)
        if not key.startswith(prefix) or HEADS.match(inner):
            left_out.append(key)
        else:
            body[inner] = value
    return body, left_out


def _in_our_names(weights: State, name: str) -> tuple[State, list[str], str]:
    """The backbone's tensors in the names of its first code, the names left out, and the layout."""
    if "cls_positional_encoding.cls_token" in weights or "patch_embed.patch_model.weight" in weights:
        body, left_out = _split_off_heads(_renamed(weights, PYTORCHVIDEO))
        return body, left_out, "pytorchvideo MViT"
    found = (
        re.match(r"(.*?)(?:videomae\.)?embeddings\.patch_embeddings\.projection\.", key) for key in weights
    )
    if (match := next((match for match in found if match), None)) is not None:
        bare = {key.removeprefix(match[1]): value for key, value in weights.items()}
        body, left_out = _split_off_heads(_renamed(bare, HUGGING_FACE))
        return body, left_out, "Hugging Face VideoMAE"
    body, left_out = _split_off_heads(weights)
    return body, left_out, _recognise(body, left_out, name)


def _renamed(weights: State, names: Iterable[tuple[str, str]]) -> State:
    """Tensors by the names that these patterns make of theirs."""
    renamed = {}
    for key, value in weights.items():
        for pattern, ours in names:
            key = re.sub(pattern, ours, key)
        renamed[key] = value
    return renamed


def _recognise(body: State, left_out: list[str], name: str) -> str:
    """Recognise which of BACKBONES' layouts the tensors have, by names that only it has."""
    if "conv_proj.weight" in body:
        return "torchvision MViT"
    if "blocks.0.attn.pool_k.weight" in body:
        return "PySlowFast MViT"
    if "blocks.0.attn.q_bias" in body:
        return "VideoMAE ViT"
    if "pos_embed_spatial" in body and "blocks.0.attn.qkv.bias" in body:
        return "Hiera MAE" if any("encoder_norm." in key for key in left_out) else "Hiera"
    names = [*body, *left_out]
    found = (who for pattern, who in OTHERS if any(re.search(pattern, key) for key in names))
    whose = next((f", in the names of {who}" for who in found), "")
    raise CheckpointError(
        f"{name} holds weights of an unknown layout{whose}; known are "
        "MViT of PySlowFast, torchvision or pytorchvideo, Hiera for video, ViT of VideoMAE (also Hugging "
        f"Face's) or UMT. Its first tensors are {', '.join(list(body)[:6])}"
    )


def _rename(body: State, layout: str) -> State:
    """Rename tensors, and reshape the class token, as the models here have them."""
    if layout == "torchvision MViT":
        return dict(_from_torchvision(key, value) for key, value in body.items())
    if layout in ("PySlowFast MViT", "pytorchvideo MViT"):
        return _join_projections(body)
    if layout in ("VideoMAE ViT", "Hugging Face VideoMAE"):
        return {re.sub(r"^fc_norm\.", "norm.", key): value for key, value in _join_projections(body).items()}
    return body


def _from_torchvision(key: str, value: Tensor) -> tuple[str, Tensor]:
    in_stem = key.startswith("pos_encoding.")
    for pattern, ours in TORCHVISION:
        key = pattern.sub(ours, key)
    return key, value.view(1, -1, value.shape[-1]) if in_stem else value


def _join_projections(body: State) -> State:
    """Join attn.q, .k and .v, in PySlowFast's files of 2021 and with SEPARATE_QKV, to attn.qkv."""
    joined: State = {}
    for key, value in body.items():
        match = re.fullmatch(r"(.+\.attn\.)[qkv](\.(?:weight|bias))", key)
        parts = [f"{match[1]}{x}{match[2]}" for x in "qkv"] if match else []
        if not match or any(part not in body for part in parts):
            joined[key] = value
        elif key == parts[0]:
            joined[f"{match[1]}qkv{match[2]}"] = torch.cat([body[part] for part in parts])
    return joined


def _resize(key: str, value: Tensor, shape: torch.Size) -> Tensor | None:
    """Return `value` in the model's shape, interpolating position embeddings; None: it does not fit."""
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
    """Whether the file may lack a tensor of the model."""
    # Hiera's pre-training has only a norm over the fused scales, which is another one.
    return layout == "Hiera MAE" and key.startswith("norm.")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _brief(names: Iterable[str]) -> str:
    """List names with block numbers replaced by *, each once with its count."""
    counts = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return ", ".join(key if n == 1 else f"{key} x{n}" for key, n in counts.items()) or "none"
