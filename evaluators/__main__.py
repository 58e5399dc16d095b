"""Score detections from files: `python -m evaluators ava|ucf24|jhmdb|actors|compare --help`.

Text goes to the screen, everything else into the JSON file. Exit status 0; 2 for bad input, with
one line that names file, line and reason, and nothing written; 130 when interrupted.
"""

import argparse
import ctypes
import difflib
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from io import BytesIO
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from actloc_version import __version__
from evaluators.act_pickle import (
    MULTISPORTS_LEFT_OUT,
    ActAnnotations,
    read_act,
    read_act_detections,
    read_tubes,
    split_ground_truth,
    split_videos,
)
from evaluators.audit import Audit, audit_rows, notes
from evaluators.ava_csv import (
    outside,
    read_detections,
    read_exclusions,
    read_groundtruth,
    read_label_map,
    read_persons,
)
from evaluators.chance import chance_level
from evaluators.errors import ErrorBudget, error_budget
from evaluators.files import atomic_write, is_standard_output
from evaluators.frame_map import (
    AVA_PROTOCOLS,
    UCF_PROTOCOLS,
    Detections,
    EvalRules,
    FrameMap,
    GroundTruth,
    Protocol,
    frame_mAP,
)
from evaluators.hints import exclusions_that_match_nothing, hints, other_names, sparse_tubes
from evaluators.jackknife import Comparison, Intervals, compare, intervals
from evaluators.linking import LINKINGS, Linking
from evaluators.precision_recall import actor_curve, actor_precision_recall
from evaluators.present import class_table, comparison_table, percent, plot, summarise
from evaluators.video_map import VIDEO_RULES, VideoMap, video_mAP

Json = dict[str, Any]
SUSPICIOUS = 0.5
"""mAP below which another reading of the detections is looked for."""
ANY_CLASS = range(1, 10_000)  # ids a file may have; those not in the label map are counted
FROM_0 = range(10_000)  # the same beside a label map that has the id 0
JSON_NAMES = {  # field of `Audit` -> its established name in the JSON file, where they differ
    "other_class_ground_truth": "other_classes_truth",
    "other_class_detections": "other_classes_found",
    "excluded_ground_truth": "excluded_truth",
    "excluded_detections": "excluded_found",
    "inverted_detections": "inside_out",
    "repeated_ground_truth": "duplicate_truth",
    "repeated_detections": "duplicate_found",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for bad input, 130 when interrupted, 141 when nobody
    reads the output any more.
    """
    try:
        try:
            return _run(_parser().parse_args(arguments))
        finally:
            if sys.stdout is not None:  # closed by >&-
                sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python's last flush complains
        return 128 + signal.SIGPIPE


def _run(options: argparse.Namespace) -> int:
    """Run a command; -> its exit status."""
    try:
        named = [getattr(options, name, None) for name in ("json", "curve", "plot")]
        outputs = [path for path in named if path is not None]
        for path in outputs:
            if not path.parent.is_dir():
                raise ValueError(f"{path}: the folder {path.parent} does not exist; create it first")
        printed = [path for path in outputs if is_standard_output(path)]
        if len(printed) > 1:
            raise ValueError(
                f"{printed[0]} and {printed[1]} are both standard output; give one of them a file"
            )
        # The text then goes to standard error, so that another program can read what is written.
        with redirect_stdout(sys.stderr) if printed else nullcontext():
            options.command(options)
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ImportError) as error:
        print(f"evaluators {options.name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"evaluators {options.name}: interrupted", file=sys.stderr)
        return 130
    return 0


# --- commands ------------------------------------------------------------------------------------


def ava(options: argparse.Namespace) -> None:
    """AVA frame-mAP."""
    task = _ava_task(options)
    detections = read_detections(options.detections, _ids(task.classes))
    scored = _score(task, detections, options)
    _write(options, {"dataset": "ava", **scored.json, "files": _files(options)}, scored.to_plot)
    print("\n".join([*scored.text, *_hints(detections, pixels=False)]))


def ucf(options: argparse.Namespace) -> None:
    """UCF101-24 and JHMDB: frame-mAP and video-mAP, of one split or of all."""
    annotations = read_act(options.groundtruth, boxes=options.boxes)
    num_splits = len(annotations.test_videos)
    splits = _splits(num_splits, options)
    scored = [_score_split(annotations, split, path, options) for split, path in splits]
    text: list[str] = []
    for (split, path), one in zip(splits, scored, strict=True):
        text += [f"split {split} of {num_splits}, {path.name}"] * (len(splits) > 1) + one.text
    result = scored[0].json
    if len(splits) > 1:
        result = _mean_of_splits([one.json for one in scored])
        video = f", video-mAP@0.5 {100 * result['video_map']['0.5']:.2f}" if options.video_map else ""
        text.append(f"mean of the splits: frame-mAP {percent(result['mAP'])}{video} %")
    elif options.name == "jhmdb" and num_splits > 1:
        text.append(f"note: split {splits[0][0]} of {num_splits}; JHMDB's number is the mean of all")
    _write(options, {"dataset": options.name, **result, "files": _files(options)}, scored[0].to_plot)
    print("\n".join(text))


def tubes(options: argparse.Namespace) -> None:
    """Video-mAP of tubes that are linked already."""
    annotations = read_act(options.groundtruth, boxes=options.boxes)
    ground_truth = split_ground_truth(annotations, _split_number(options.split))
    classes, notes = _evaluated(annotations, options.protocol, options)
    score = video_mAP(
        ground_truth,
        read_tubes(options.tubes, annotations),
        classes,
        protocol=options.protocol,
    )
    result = {"dataset": "act", "metric": "video-mAP", **_video_json(score), "files": _files(options)}
    text = [summarise(score)]
    if options.per_class:
        text.append(class_table({"AP@0.5": score.ap[0.5]}, score.classes))
    _write(options, result, score)
    print("\n".join([*text, *(f"note: {note}" for note in notes)]))


def actors(options: argparse.Namespace) -> None:
    """Precision and recall of actors at theta."""
    task = _ava_task(options)
    persons = read_persons(options.detections)
    inputs = (task.ground_truth, persons, task.classes)
    score = actor_precision_recall(*inputs, rules=task.rules, theta=options.theta)
    curve = actor_curve(*inputs, rules=task.rules)
    result = {
        "dataset": "ava",
        "metric": "actors",
        "protocol": task.rules.protocol,
        **{key: _number(value) for key, value in asdict(score).items()},
        "num_ground_truth": score.actors,
        "num_detections": score.true_positives + score.false_positives,
        "num_detections_at_any_theta": len(persons.video),
        "files": _files(options),
    }
    lines = ["theta,precision,recall"]
    lines += [",".join("" if isnan(x) else repr(x) for x in row) for row in np.stack(curve).T.tolist()]
    _write(options, result, curve, curve=lines)
    print("\n".join([summarise(score), *_hints(persons, pixels=False)]))


def comparison(options: argparse.Namespace) -> None:
    """Runs against the first, paired over videos. ValueError: options that do not go together."""
    if len(options.detections) < 2:
        raise ValueError("compare needs at least two detection files: the first, and others against it")
    is_act = options.groundtruth.suffix.lower() == ".pkl"
    task, runs = _act_runs(options) if is_act else _ava_runs(options)
    results: list[Comparison] = [
        compare(
            task.ground_truth,
            (runs[0], run),
            task.classes,
            rules=task.rules,
        )
        for run in runs[1:]
    ]
    against, text = [], []
    for path, result in zip(options.detections[1:], results, strict=True):
        against.append({"second": str(path), **_comparison_json(result)})
        text.append(f"{options.detections[0]} -> {path}\n{comparison_table(result)}\n{summarise(result)}")
    content = {
        "metric": "compare",
        "protocol": task.rules.protocol,
        "iou": options.iou,
        "first": str(options.detections[0]),
        "classes": _keyed(task.classes),
        "against": against,
        "files": _files(options),
    }
    _write(options, content, results[0])
    print("\n\n".join(text))


# --- shared by the commands ----------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What detections are scored against."""

    ground_truth: GroundTruth
    classes: dict[int, str]
    rules: EvalRules
    notes: tuple[str, ...] = ()
    """What is unusual about the ground truth's file."""


@dataclass
class Scored:
    """One score as text, as JSON, and as the result to plot."""

    text: list[str]
    json: Json
    to_plot: object


def _ava_task(options: argparse.Namespace) -> Task:
    rules = EvalRules(
        getattr(options, "protocol", None) or Protocol.STANDARD,
        iou=options.iou,
        excluded=read_exclusions(options.exclusions) if options.exclusions else frozenset(),
    )
    classes = _chosen(read_label_map(options.labelmap), options)
    ground_truth = read_groundtruth(options.groundtruth, _ids(classes))
    boxes, most = outside(ground_truth)
    note = f"{boxes:,} rows of ground truth have boxes that leave the frame, by up to {most:.4f}; kept"
    notes = exclusions_that_match_nothing(ground_truth, rules.excluded)
    return Task(ground_truth, classes, rules, (*((note,) if boxes else ()), *notes))


def _ids(classes: Mapping[int, str]) -> range:
    """The ids that a file may have."""
    return FROM_0 if 0 in classes else ANY_CLASS


def _act_task(annotations: ActAnnotations, split: int, options: argparse.Namespace) -> Task:
    rules = EvalRules(
        options.protocol or Protocol.GURKIRT, iou=options.iou, plus_one=getattr(options, "plus_one", False)
    )
    ground_truth = split_ground_truth(annotations, split)
    classes, notes = _evaluated(annotations, rules.protocol, options)
    return Task(ground_truth, classes, rules, (*notes, *sparse_tubes(ground_truth, rules)))


def _chosen(classes: dict[int, str], options: argparse.Namespace) -> dict[int, str]:
    """The classes of --classes, by name or id; all without it. ValueError: an unknown one."""
    if not options.classes:
        return classes
    ids = {name: i for i, name in classes.items()} | {str(i): i for i in classes}
    for word in options.classes:
        if word not in ids:
            near = difflib.get_close_matches(word, ids, n=1, cutoff=0.4) or list(ids)[:1]
            raise ValueError(
                f"--classes: {word!r} is not among the {len(classes)} classes, of which one is {near[0]!r}"
            )
    kept = {ids[word] for word in options.classes}
    return {i: name for i, name in classes.items() if i in kept}


def _evaluated(
    annotations: ActAnnotations, protocol: str, options: argparse.Namespace
) -> tuple[dict[int, str], list[str]]:
    """The classes that a protocol evaluates, and a note on those that it does not."""
    classes = annotations.classes
    if options.classes or protocol != Protocol.MULTISPORTS:
        return _chosen(classes, options), []
    kept = {i: name for i, name in classes.items() if name not in MULTISPORTS_LEFT_OUT}
    out = len(classes) - len(kept)
    return kept, [f"classes that MultiSports' own tool does not evaluate: {out}, left out"] * (out > 0)


def _ava_runs(options: argparse.Namespace) -> tuple[Task, list[Detections]]:
    if options.labelmap is None:
        raise ValueError("--labelmap is needed with AVA's ground truth: the classes to evaluate")
    task = _ava_task(options)
    return task, [read_detections(path, _ids(task.classes)) for path in options.detections]


def _act_runs(options: argparse.Namespace) -> tuple[Task, list[Detections]]:
    annotations = read_act(options.groundtruth, boxes=options.boxes)
    split = 1 if options.split is None else _split_number(options.split)
    task, videos = _act_task(annotations, split, options), split_videos(annotations, split)
    return task, [
        read_act_detections(path, annotations, split).in_videos(videos) for path in options.detections
    ]


def _score(task: Task, detections: Detections, options: argparse.Namespace) -> Scored:
    """Frame-mAP and the requested additions to it."""
    inputs = (task.ground_truth, detections, task.classes)
    budget = error_budget(*inputs, rules=task.rules) if options.errors else None
    interval = None
    if options.intervals:
        interval = intervals(*inputs, rules=task.rules)
    with_score = interval or budget
    score = with_score.score if with_score else frame_mAP(*inputs, rules=task.rules)
    counts = audit_rows(*inputs, rules=task.rules)

    chance = chance_level(task.ground_truth, task.classes, rules=task.rules)
    text = [summarise(score), f"chance level {percent(chance)} %   (ground-truth boxes with random classes)"]
    if interval:
        text.append(summarise(interval))
    if options.per_class:
        columns: dict[str, Mapping[int, float]] = {"AP": score.ap}
        if interval:
            columns |= {"from": interval.class_low, "to": interval.class_high}
        text.append(class_table(columns, score.classes))
    if budget:
        text.append(summarise(budget))
    found = hints(task.ground_truth, detections) if not score.mAP >= SUSPICIOUS else []
    text += [f"note: {note}" for note in (*task.notes, *notes(counts, task.rules), *found)]
    result = _frame_json(score, counts, interval, budget) | {"chance_level": _number(chance)}
    return Scored(text, result, budget or interval or score)


def _score_split(annotations: ActAnnotations, split: int, path: Path, options: argparse.Namespace) -> Scored:
    task = _act_task(annotations, split, options)
    read = read_act_detections(path, annotations, split)
    detections = read.in_videos(split_videos(annotations, split))
    outside = len(read.video) - len(detections.video)
    scored = _score(task, detections, options)
    if options.video_map:
        tubes, notes = _linked_tubes(annotations, split, detections, options)
        scored.text += [f"note: video-mAP: {note}" for note in notes]
        scored.text.insert(2, summarise(tubes))
        scored.json["video_map"] = _video_json(tubes)
    if outside:
        scored.text.append(f"note: detections in videos outside split {split}: {outside:,}, not scored")
        scored.text += [f"note: {note}" for note in other_names(task.ground_truth, read)]
    scored.text += _hints(detections, pixels=True)
    scored.json |= {"split": split, "num_outside_split": outside}
    return scored


def _linked_tubes(
    annotations: ActAnnotations, split: int, detections: Detections, options: argparse.Namespace
) -> tuple[VideoMap, list[str]]:
    """Video-mAP of frame detections, and notes."""
    classes, notes = _evaluated(annotations, options.video_protocol, options)
    linking = LINKINGS[options.linking] if options.linking else None
    score = video_mAP(
        split_ground_truth(annotations, split),
        detections,
        classes,
        protocol=options.video_protocol,
        linking=linking,
        lengths=annotations.nframes,
    )
    if len(detections.video) and not score.num_detections and isinstance(score.linking, Linking):
        notes.append(
            f"no tube lasts {score.linking.least_frames} frames: shorter ones are dropped in linking"
        )
    if options.protocol != options.video_protocol:
        notes.append(f"by {options.video_protocol}'s tool; frame-mAP is by {options.protocol}'s")
    return score, notes


def _splits(num_splits: int, options: argparse.Namespace) -> list[tuple[int, Path]]:
    """The splits to score, each with its detection file."""
    if options.split == "all":
        if len(options.detections) != num_splits:
            raise ValueError(
                f"--split all needs the detections of {num_splits} models, one file per split in order; "
                f"found {len(options.detections)}"
            )
        return list(enumerate(options.detections, 1))
    if len(options.detections) != 1:
        raise ValueError(
            f"one split takes one detection file; found {len(options.detections)}. For all: --split all"
        )
    return [(_split_number(options.split), options.detections[0])]


def _split_number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"--split is a number from 1 or, for ucf24 and jhmdb, all; found {text!r}")
    return int(text)


def _hints(detections: Detections, *, pixels: bool) -> list[str]:
    """Notes on the wrong unit or column, which give an mAP near 0 or near 100 without an error."""
    if len(detections.box) == 0:
        return ["note: there are no detections"]
    most, hints = float(detections.box.max()), []
    if pixels and most <= 1.5:
        hints.append(f"note: no box coordinate is above {most:g}; are they fractions? Pixels are needed")
    if not pixels and np.median(detections.box.max(axis=1)) > 1.5:
        hints.append(f"note: box coordinates reach {most:g}; are they pixels? Fractions of 1 are needed")
    if not pixels and (detections.score == np.floor(detections.score)).all():
        hints.append("note: all scores are whole numbers; are they person ids? Ground truth has those there")
    return hints


# --- JSON ----------------------------------------------------------------------------------------


def _frame_json(
    score: FrameMap, counts: Audit, interval: Intervals | None, budget: ErrorBudget | None
) -> Json:
    result: Json = {
        "metric": "frame-mAP",
        "protocol": score.protocol,
        "plus_one": score.plus_one,
        "iou": score.iou,
        "mAP": _number(score.mAP),
        "per_class": _keyed(score.ap),
        "classes": _keyed(score.classes),
        "num_classes": score.num_classes,
        "num_ground_truth": score.num_ground_truth,
        "num_detections": score.num_detections,
        "num_true_positives": score.num_true_positives,
        "rows": {JSON_NAMES.get(name, name): value for name, value in asdict(counts).items()},
    }
    if interval:
        ends = {i: [_number(interval.class_low[i]), _number(interval.class_high[i])] for i in score.ap}
        result["intervals"] = {
            "level": interval.level,
            "num_videos": interval.num_videos,
            "mAP": [_number(interval.low), _number(interval.high)],
            "per_class": _keyed(ends),
        }
    if budget:
        result["errors"] = {
            "background": budget.background,
            "mAP_gain": {cause: _number(gain) for cause, gain in budget.mAP_gain.items()},
            "count": budget.count,
            "per_class": _keyed(budget.class_count),
        }
    return result


def _video_json(score: VideoMap) -> Json:
    return {
        **{f"{threshold:g}": _number(value) for threshold, value in score.mAP.items()},
        "0.5:0.95": _number(score.mAP_50_95),
        **{name: _number(mean) for name, mean in score.means.items()},
        "protocol": score.protocol,
        "per_class": {f"{threshold:g}": _keyed(ap) for threshold, ap in score.ap.items()},
        "num_ground_truth": score.num_ground_truth,
        "num_detections": score.num_detections,
        "linking": _linking_json(score),
    }


def _linking_json(score: VideoMap) -> Json | None:
    if score.linking is None:
        return None
    names = [name for name, known in LINKINGS.items() if known == score.linking]
    return {"name": names[0] if names else None, **asdict(score.linking)}


def _comparison_json(result: Comparison) -> Json:
    return {
        "mAP": [_number(result.first.mAP), _number(result.second.mAP)],
        "difference": _number(result.difference),
        "interval": [_number(result.low), _number(result.high)],
        "p_value": _number(result.p_value),
        "per_class": {
            str(i): {
                "AP": [_number(result.first.ap[i]), _number(result.second.ap[i])],
                "difference": _number(result.class_difference[i]),
                "interval": [_number(result.class_low[i]), _number(result.class_high[i])],
                "p_value": _number(result.class_p_value[i]),
            }
            for i in result.class_difference
        },
        "level": result.level,
        "num_videos": result.num_videos,
    }


def _mean_of_splits(splits: list[Json]) -> Json:
    """The mean over the splits, of mAP and of each class, and the splits themselves."""
    first = splits[0]
    result: Json = {key: first[key] for key in ("metric", "protocol", "plus_one", "iou")}
    result["mAP"] = _mean([one["mAP"] for one in splits])
    result["per_class"] = {i: _mean([one["per_class"][i] for one in splits]) for i in first["per_class"]}
    result |= {"classes": first["classes"], "num_classes": first["num_classes"]}
    for key in ("num_ground_truth", "num_detections", "num_true_positives"):
        result[key] = sum(one[key] for one in splits)
    if "video_map" in first:
        numbers = [key for key in first["video_map"] if key[0].isdigit()]
        result["video_map"] = {key: _mean([one["video_map"][key] for one in splits]) for key in numbers}
    return {**result, "split": "all", "splits": splits}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: Any) -> Any:
    """NaN is null in JSON."""
    return None if isinstance(value, float) and isnan(value) else value


def _keyed(values: Mapping[int, Any]) -> Json:
    return {str(key): _number(value) for key, value in values.items()}


def _files(options: argparse.Namespace) -> Json:
    names = ("groundtruth", "detections", "tubes", "labelmap", "exclusions")
    given = {name: getattr(options, name, None) for name in names}
    return {
        name: [str(path) for path in value] if isinstance(value, list) else str(value)
        for name, value in given.items()
        if value is not None
    }


def _write(options: argparse.Namespace, result: Json, to_plot: object, *, curve: Sequence[str] = ()) -> None:
    """Write the requested files atomically. All contents are made before the first is written."""
    files: list[tuple[Path, bytes]] = []
    if options.plot:
        image = BytesIO()
        plot(to_plot).savefig(image, format=options.plot.suffix[1:].lower() or "png")
        files.append((options.plot, image.getvalue()))
    if curve and options.curve:
        files.append((options.curve, "\n".join([*curve, ""]).encode()))
    if options.json:
        files.append((options.json, json.dumps(result, indent=1, allow_nan=False).encode() + b"\n"))
    for path, content in files:
        with atomic_write(path) as file:
            file.write(content)


# --- options -------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="actloc-eval" if Path(sys.argv[0]).name == "actloc-eval" else "python -m evaluators",
        description="Frame-mAP, video-mAP and actor precision and recall of action detections.",
    )
    used = f"Python {platform.python_version()}, NumPy {np.__version__}"
    parser.add_argument("--version", action="version", version=f"actloc {__version__}, {used}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    csv = "AVA csv: video, second, x1, y1, x2, y2, action"
    pickle = "ACT's pickle, such as UCF101v2-GT.pkl"
    rules = "evaluation protocol, see docs/evaluators.md"

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str, ground_truth: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run)
        sub.add_argument("--groundtruth", type=Path, required=True, metavar="FILE", help=ground_truth)
        sub.add_argument(
            "--json", type=Path, metavar="FILE", help="write all numbers to this file (-: standard output)"
        )
        sub.add_argument("--plot", type=Path, metavar="FILE", help="plot the result: .svg, .png, .pdf")
        sub.add_argument(
            "--classes", nargs="+", metavar="CLASS", help="evaluate only these, by name or id (all)"
        )
        sub.add_argument("--iou", type=_threshold, default=0.5, help="least IoU of a true positive (0.5)")
        return sub

    def replaced(sub: argparse.ArgumentParser) -> None:
        for option in ("--bootstrap", "--seed"):
            sub.add_argument(option, action=_Replaced, help=argparse.SUPPRESS)

    def extras(sub: argparse.ArgumentParser, known: Sequence[Protocol], default: Protocol) -> None:
        sub.add_argument(
            "--protocol", choices=[*map(str, known)], default=default, help=f"{rules} ({default})"
        )
        sub.add_argument("--per-class", action="store_true", help="print the AP of every class")
        sub.add_argument("--intervals", action="store_true", help="95 %% intervals, a jackknife over videos")
        replaced(sub)
        sub.add_argument("--errors", action="store_true", help="error budget: mAP gain by kind of error")

    def ava_files(sub: argparse.ArgumentParser, *, required: bool = True) -> None:
        sub.add_argument("--labelmap", type=Path, required=required, metavar="FILE", help="evaluated classes")
        sub.add_argument("--exclusions", type=Path, metavar="FILE", help="seconds that are not scored")

    sub = command("ava", ava, "AVA frame-mAP from csv files", csv)
    sub.add_argument("--detections", type=Path, required=True, metavar="FILE", help=f"{csv}, with a score")
    ava_files(sub)
    extras(sub, AVA_PROTOCOLS, Protocol.STANDARD)

    for name, title in (("ucf24", "UCF101-24"), ("jhmdb", "JHMDB")):
        sub = command(name, ucf, f"{title} frame-mAP and video-mAP from ACT's pickle", pickle)
        _add_ucf_options(sub)
        extras(sub, UCF_PROTOCOLS, Protocol.GURKIRT)

    _add_tube_options(command("tubes", tubes, "video-mAP of tubes that are linked already", pickle))
    sub = command("actors", actors, "precision and recall of actors, whatever their action", csv)
    persons = "csv of persons: video, second, x1, y1, x2, y2, score"
    sub.add_argument("--detections", type=Path, required=True, metavar="FILE", help=persons)
    ava_files(sub)
    sub.add_argument("--theta", type=float, default=0.2, help="score threshold, exclusive (0.2)")
    sub.add_argument("--curve", type=Path, metavar="FILE", help="write the whole curve to this csv file")

    either = f"{csv}, or {pickle}"
    sub = command("compare", comparison, "runs against the first: per class, paired over videos", either)
    sub.add_argument("detections", type=Path, nargs="+", metavar="FILE", help="of at least two runs")
    ava_files(sub, required=False)
    sub.add_argument(
        "--protocol",
        choices=[*map(str, Protocol)],
        help=f"{rules} (standard; gurkirt with a pickle)",
    )
    sub.add_argument("--split", help="with ACT's pickle for ground truth: a number from 1 (1)")
    sub.add_argument("--boxes", choices=("xyxy", "xywh"), help="the pickle's columns (by its types)")
    replaced(sub)
    return parser


def _add_ucf_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--detections",
        type=Path,
        required=True,
        nargs="+",
        metavar="FILE",
        help=".npy (video index, frame, label, score, x1, y1, x2, y2) or csv (the video's name first); "
        "with --split all one per split",
    )
    sub.add_argument("--split", default="1", help="a number from 1, or all: the mean (1)")
    sub.add_argument("--plus-one", action="store_true", help="protocol annotated as in YOWO's tool")
    sub.add_argument("--boxes", choices=("xyxy", "xywh"), help="the pickle's columns (by its types)")
    sub.add_argument("--video-map", action="store_true", help="link to tubes and compute video-mAP, too")
    sub.add_argument(
        "--video-protocol",
        choices=[*map(str, VIDEO_RULES)],
        default=Protocol.ACT,
        help="how tubes are scored, see docs/evaluators.md (act)",
    )
    sub.add_argument(
        "--linking", choices=[*LINKINGS], help="how boxes are linked to tubes (act; yowo with its protocol)"
    )


def _add_tube_options(sub: argparse.ArgumentParser) -> None:
    form = "{label: [(video, score, rows of frame, x1, y1, x2, y2), ..]}"
    sub.add_argument("--tubes", type=Path, required=True, metavar="FILE", help=f"pickle of {form}")
    sub.add_argument("--split", default="1", help="a number from 1 (1)")
    sub.add_argument("--boxes", choices=("xyxy", "xywh"), help="the pickle's columns (by its types)")
    sub.add_argument(
        "--protocol",
        choices=[*map(str, VIDEO_RULES)],
        default=Protocol.MULTISPORTS,
        help="how tubes are scored, see docs/evaluators.md (multisports)",
    )
    sub.add_argument("--per-class", action="store_true", help="print the AP of every class")


class _Replaced(argparse.Action):
    """An option of the bootstrap that the intervals came from once."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            f"{self.option_strings[0]}: intervals are by a jackknife, without samples or seed; give "
            "--intervals (compare always has them)"
        )


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1; found {text!r}")
    return value


def command() -> int:
    """Run the command of this process, and return its exit status: `main`, with memory kept for reuse."""
    _keep_memory()
    return main()


def _keep_memory() -> None:
    """Let this process keep the memory that arrays free, and Arrow and NumPy share it, where glibc is.

    The arrays of a large file are otherwise given back to the kernel one by one, which clears the next one's
    pages again: a third of the CPU seconds.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another system's library
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # glibc's malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**26)


if __name__ == "__main__":
    sys.exit(command())
