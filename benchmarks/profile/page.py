"""The figures of `benchmarks.gpu` as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

CLIPS = {"AVA": 211_000}
"""Training keyframes (section 4 of the paper)."""
HOUR = 3600


def markdown(figures: Mapping[str, Any]) -> str:
    """All sections that were measured, each under its heading."""
    m = figures["machine"]
    kind = " Small models: the figures mean nothing." if m["quick"] else ""
    parts = [
        f"# Training on one {m['device']}",
        f"Measured {m['date']} by `python -m benchmarks.gpu` with torch {m['torch']}, "
        f"{m['cores']} CPU cores.{kind}",
    ]
    for name, write in SECTIONS.items():
        section = figures.get(name)
        if section is None:
            continue
        if isinstance(section, dict) and "error" in section:
            parts.append(f"## {name}\n\nfailed:\n\n```\n{section['error'].strip()}\n```")
        else:
            parts.append(write(section, figures))
    commits: dict[str, list[str]] = {}
    for name, commit in figures.get("commits", {}).items():
        commits.setdefault(commit, []).append(name)
    parts += [f"Commit {commit}: {', '.join(names)}." for commit, names in commits.items()]
    return "\n\n".join(parts)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """A Markdown table. columns: key -> (heading, format); what is None or missing stays empty."""
    heads = [head for head, _ in columns.values()]
    lines = ["| " + " | ".join(heads) + " |", "|:--" + "|--:" * (len(heads) - 1) + "|"]
    for row in rows:
        cells = [
            "" if row.get(key) is None else (f"{row[key]:{form}}" if form else str(row[key]))
            for key, (_, form) in columns.items()
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ceilings(c: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    return (
        f"## Ceilings\n\nMatrix product {c['matmul']}: {c['matmul_tflops']:.0f} TFLOP/s. "
        f"Copy: {c['copy_gb_s']:.0f} GB/s, read and written."
    )


def _accuracy(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> str:
    columns = {"model": ("model", "")} | {
        f"{kind} {what}": (f"{kind} {what}", ".1e")
        for kind in ("float32", "bfloat16")
        for what in ("tokens", "gradients")
    }
    return (
        "## Accuracy\n\nRelative error against float64, a clip of 64 x 64, random weights, TF32 off.\n\n"
        + table(rows, columns)
    )


def _graphs(losses: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    rows = [{"way": name, **{f"step {i}": x for i, x in enumerate(losses[name], 1)}} for name in losses]
    columns = {"way": ("", "")} | {f"step {i}": (f"step {i}", ".5f") for i in (1, 2, 3)}
    return "## CUDA graphs\n\nThe loss of the same three steps, batch 2:\n\n" + table(rows, columns)


STEP_COLUMNS = {
    "model": ("model", ""),
    "batch": ("batch", ""),
    "graphs": ("graphs", ""),
    "forward_ms_clip": ("forward ms/clip", ".2f"),
    "backward_ms_clip": ("forward + backward ms/clip", ".2f"),
    "step_ms_clip": ("step ms/clip", ".2f"),
    "clips_s": ("clips/s", ".1f"),
    "tflops": ("TFLOP/s", ".0f"),
    "mfu": ("MFU %", ".1f"),
    "peak_gib": ("peak GiB", ".1f"),
    "synchronisations": ("host syncs", ""),
    "first_step_s": ("first step s", ".1f"),
}


def _speed(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> str:
    every = [*rows, *_rows(figures.get("eager")), *_rows(figures.get("compile"))]
    ceiling = figures.get("ceilings", {}).get("matmul_tflops")
    shown = []
    for row in every:
        if "error" in row:
            continue
        tflops = (
            6 * row["gmac"] * row["clips_s"] / 1e3
        )  # 2 a multiply-accumulate, forward once, backward twice
        shown.append(row | {"tflops": tflops, "mfu": 100 * tflops / ceiling if ceiling else None})
    failed = "".join(f"\n\nfailed: {row['error']}" for row in every if "error" in row)
    return (
        "## Training steps\n\nbfloat16, clips copied from pinned host memory, AdamW; evaluation forward "
        "without graphs. TFLOP/s count 6 per multiply-accumulate and clip; MFU is their share of the matrix "
        f"product above.\n\n{table(shown, STEP_COLUMNS)}{failed}\n\n{_hours(rows)}"
    )


def _rows(section: Any) -> list[Any]:
    return section if isinstance(section, list) else []


def _hours(rows: Sequence[Mapping[str, Any]]) -> str:
    """Hours of the paper's rows on AVA: 25 epochs (DETR 50) of 211,000 keyframes, 16 clips a step."""
    hours = []
    for name in dict.fromkeys(row["model"] for row in rows if "error" not in row):
        epochs = 50 if name.startswith("DETR") else 25
        steps = epochs * CLIPS["AVA"] / 16
        by_batch = {
            row["batch"]: row["step_ms_clip"] * row["batch"] / 1e3 for row in rows if row.get("model") == name
        }
        hours.append(
            {
                "model": name,
                "one": steps * by_batch[16] / HOUR if 16 in by_batch else None,
                "eight": steps * by_batch[2] / HOUR if 2 in by_batch else None,
            }
        )
    return (
        "Hours of training on AVA, 25 epochs (DETR 50) of 211,000 keyframes at 16 clips a step, from the "
        "steps above; eight GPUs take 2 clips each, the exchange of gradients and the loader not counted.\n\n"
        + table(hours, {"model": ("model", ""), "one": ("one GPU", ".0f"), "eight": ("eight GPUs", ".0f")})
    )


def _plain(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> str:
    columns = {
        "batch": ("batch", ""),
        "ours ms_clip": ("ours ms/clip", ".2f"),
        "plain ms_clip": ("plain ms/clip", ".2f"),
        "ratio": ("ratio", ".2f"),
        "ours peak_gib": ("ours GiB", ".1f"),
        "plain peak_gib": ("plain GiB", ".1f"),
    }
    return (
        "## Against a straightforward MViTv2-S\n\nForward and backward of the backbone at 256 without "
        "graphs, against the explicit biases and softmax of the tests' reference.\n\n" + table(rows, columns)
    )


def _kernels(k: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    if "note" in k:
        return f"## Kernels of a step\n\n{k['note']}"
    groups = [{"group": name, "share": 100 * share} for name, share in k["groups"].items()]
    top = [{"kernel": f"`{name}`", "share": 100 * share} for name, share in k["top"][:15]]
    attention = ", ".join(dict.fromkeys(f"`{name}`" for name, _ in k["attention"]))
    return (
        f"## Kernels of a step\n\nMViTv2-S at 256, batch 8: {k['launched']} kernels, "
        f"{k['device_ms']:.0f} ms on the device, {k['wall_ms']:.0f} ms in all (profiled).\n\n"
        + table(groups, {"group": ("group", ""), "share": ("% of device time", ".1f")})
        + "\n\n"
        + table(top, {"kernel": ("kernel", ""), "share": ("%", ".1f")})
        + f"\n\nAttention kernels: {attention or 'none'}."
    )


def _depthwise(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> str:
    columns = {key: (key, ".2f" if isinstance(value, float) else "") for key, value in rows[0].items()}
    return (
        "## Depthwise convolutions\n\nForward and backward, ms on the device, 8 clips; `benchmark` is "
        "cudnn.benchmark.\n\n" + table(rows, columns)
    )


def _trains(t: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    columns = {
        name: (name, ".0f" if name in ("step", "seconds") else ".3f")
        for name in ("step", "seconds", "loss", "l1", "giou", "actor", "action")
    }
    return (
        f"## It trains\n\nMViTv2-S at 256 from random weights, {t['seconds']:.0f} s on rendered scenes: "
        f"{t['steps']} steps, {t['clips_s']:.0f} clips/s. Validation mAP {100 * t['mAP_before']:.1f} before, "
        f"{100 * t['mAP_after']:.1f} after (ground-truth boxes with random classes: "
        f"{100 * t['mAP_random_classes']:.1f}).\n\n" + table(t["curve"], columns)
    )


def _loader(rows: Any, figures: Mapping[str, Any]) -> str:
    head = "## Loader\n\n"
    if "note" in rows:
        return f"{head}{rows['note']}"
    fastest = max((row["clips_s"] for row in _rows(figures.get("speed")) if "clips_s" in row), default=None)
    shown = [row | {"cores": fastest / row["clips_s"] if fastest else None} for row in rows]
    columns = {
        "file": ("file", ""),
        "decoding_ms": ("decoding ms/clip", ".0f"),
        "resizing_ms": ("resizing ms/clip", ".0f"),
        "clips_s": ("clips/s of a core", ".1f"),
        "cores": ("cores for the fastest model", ".1f"),
        "clip_mib": ("MiB a clip", ".1f"),
    }
    of = f" The fastest model takes {fastest:.0f} clips/s." if fastest else ""
    return (
        f"{head}H.264 files of 30 frames a second, a keyframe every 100; clips of 16 frames, every fourth, "
        "resized to 256 x 256, which travel as bytes. CPU time, of enlarged synthetic scenes: a film's "
        f"frames take longer.{of}\n\n{table(shown, columns)}"
    )


def _feeding(rows: Any, figures: Mapping[str, Any]) -> str:
    head = "## From files to steps\n\n"
    if "note" in rows:
        return f"{head}{rows['note']}"
    columns = {
        "file": ("file", ""),
        "workers": ("loader processes", ""),
        "read_clips_s": ("read, clips/s", ".0f"),
        "trained_clips_s": ("read and trained, clips/s", ".1f"),
        "alone_clips_s": ("trained without reading, clips/s", ".1f"),
    }
    return (
        f"{head}MViTv2-S at 256, batch 16, augmentation as in the paper's rows; files as above.\n\n"
        + table(rows, columns)
    )


def _processes(p: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    rows = [
        {"way": f"{name} process{'es' * (name == 'two')}"}
        | {f"step {i}": loss for i, loss in enumerate(p[name], 1)}
        for name in ("one", "two")
    ]
    columns = {"way": ("", "")} | {f"step {i}": (f"step {i}", ".5f") for i in (1, 2, 3)}
    return (
        "## Processes that share a batch\n\nThe loss of the same three steps of 4 clips, by one process and "
        "by two that have half of each batch, on one device through gloo:\n\n"
        f"{table(rows, columns)}\n\nA step of 2 clips takes {p['alone_ms']:.1f} ms, and {p['shared_ms']:.1f} "
        f"in DDP with {p['backend']}, in a group of one process."
    )


SECTIONS: dict[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "ceilings": _ceilings,
    "accuracy": _accuracy,
    "speed": _speed,
    "graphs": _graphs,
    "plain": _plain,
    "kernels": _kernels,
    "depthwise": _depthwise,
    "trains": _trains,
    "processes": _processes,
    "loader": _loader,
    "feeding": _feeding,
}
"""Section -> its text, in the order of the page; `eager` and `compile` are rows of `speed`'s table."""
