"""Score detections from files: `python -m evaluators ava|ucf24|jhmdb|actors|compare --help`.

Text for people goes to the screen, everything else into the JSON file. Bad input stops with one
line that names file, line and reason, exit status 2, and nothing written.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.act_pickle import (
    ActAnnotations,
    only_videos,
    read_act,
    read_act_detections,
    split_truth,
    split_videos,
)
from evaluators.audit import Audit, audit, notes
from evaluators.ava_csv import (
    read_detections,
    read_exclusions,
    read_groundtruth,
    read_label_map,
    read_persons,
    replacing,
)
from evaluators.bootstrap import Bootstrap, Comparison, bootstrap, compare
from evaluators.errors import ErrorBudget, error_budget
from evaluators.frame_map import (
    AVA_PROTOCOLS,
    UCF_PROTOCOLS,
    Detections,
    FrameMap,
    GroundTruth,
    Protocol,
    frame_map,
)
from evaluators.precision_recall import actor_curve, actor_precision_recall
from evaluators.present import class_table, plot, summarise
from evaluators.video_map import VideoMap, video_map

Json = dict[str, Any]
ANY_CLASS = range(1, 10_000)  # ids a file may have; those not in the label map are counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 for bad input (a ValueError, OSError or ImportError of it)."""
    options = _parser().parse_args(arguments)
    try:
        for path in (options.json, getattr(options, "curve", None), getattr(options, "plot", None)):
            if path is not None and not path.parent.is_dir():
                raise ValueError(f"{path}: there is no folder {path.parent} to write into")
        options.command(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"evaluators {options.name}: {error}", file=sys.stderr)
        return 2
    return 0


# --- commands ------------------------------------------------------------------------------------


def ava(options: argparse.Namespace) -> None:
    """AVA frame-mAP."""
    task = _ava_task(options)
    found = read_detections(options.detections, ANY_CLASS)
    scored = _score(task, found, options)
    _write(options, {"dataset": "ava", **scored.json, "files": _files(options)}, scored.picture)
    print("\n".join([*scored.text, *_hints(found, pixels=False)]))


def ucf(options: argparse.Namespace) -> None:
    """UCF101-24 and JHMDB: frame-mAP and video-mAP, of a split or of all."""
    annotations = read_act(options.groundtruth, boxes=options.boxes)
    splits = _splits(annotations, options)
    scored, texts = [], []
    for split, path in splits:
        task = Task(split_truth(annotations, split), annotations.classes, {}, options.protocol)
        found, outside = only_videos(
            read_act_detections(path, annotations, split), split_videos(annotations, split)
        )
        one = _score(task, found, options)
        if options.video_map:
            tubes = video_map(split_truth(annotations, split), found, annotations.classes)
            one.text.insert(1, summarise(tubes))
            one.json["video_map"] = _video_json(tubes)
        if outside:
            one.text.append(f"note: detections in videos outside split {split}: {outside:,}, not scored")
        one.json |= {"split": split, "num_outside_split": outside}
        scored.append(one)
        texts += [f"split {split} of {len(annotations.test_videos)}, {Path(path).name}"] * (len(splits) > 1)
        texts += [*one.text, *_hints(found, pixels=True)]
    result = scored[0].json if len(splits) == 1 else _mean_of_splits([one.json for one in scored])
    if len(splits) > 1:
        video = f", video-mAP@0.5 {100 * result['video_map']['0.5']:.2f}" if options.video_map else ""
        texts.append(f"mean of the splits: frame-mAP {_percent(result['mAP'])}{video} %")
    elif options.name == "jhmdb" and len(annotations.test_videos) > 1:
        count = len(annotations.test_videos)
        texts.append(f"note: split {splits[0][0]} of {count}; JHMDB's number is the mean of all")
    _write(options, {"dataset": options.name, **result, "files": _files(options)}, scored[0].picture)
    print("\n".join(texts))


def actors(options: argparse.Namespace) -> None:
    """Precision and recall of actors at theta."""
    task = _ava_task(options)
    persons = read_persons(options.detections)
    rules = {"excluded": task.excluded, "iou": options.iou}
    score = actor_precision_recall(task.truth, persons, task.classes, theta=options.theta, **rules)
    curve = actor_curve(task.truth, persons, task.classes, **rules)
    result = {
        "dataset": "ava",
        "metric": "actors",
        "protocol": Protocol.STANDARD,
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
    """Runs against the first, paired over videos. ValueError for options that do not go together."""
    if len(options.detections) < 2:
        raise ValueError("compare needs at least two detection files: the first, and others against it")
    if options.groundtruth.suffix.lower() == ".pkl":
        annotations = read_act(options.groundtruth, boxes=options.boxes)
        split = 1 if options.split is None else _split_number(options.split)
        protocol = options.protocol or Protocol.GURKIRT
        task = Task(split_truth(annotations, split), annotations.classes, {}, protocol)
        videos = split_videos(annotations, split)
        runs = [
            only_videos(read_act_detections(p, annotations, split), videos)[0] for p in options.detections
        ]
    else:
        if options.labelmap is None:
            raise ValueError("--labelmap is needed with AVA's ground truth: the classes to evaluate")
        options.protocol = options.protocol or Protocol.STANDARD
        task = _ava_task(options)
        runs = [read_detections(path, ANY_CLASS) for path in options.detections]
    results, texts, picture = [], [], None
    for path, run in zip(options.detections[1:], runs[1:], strict=True):
        found = compare(
            task.truth,
            (runs[0], run),
            task.classes,
            excluded=task.excluded,
            protocol=task.protocol,
            iou=options.iou,
            samples=options.bootstrap,
            seed=options.seed,
        )
        results.append({"second": str(path), **_comparison_json(found)})
        texts += [f"{options.detections[0]} -> {path}", _comparison_table(found), summarise(found), ""]
        picture = picture or found
    result = {
        "metric": "compare",
        "protocol": task.protocol,
        "iou": options.iou,
        "first": str(options.detections[0]),
        "classes": _keyed(task.classes),
        "against": results,
        "files": _files(options),
    }
    _write(options, result, picture)
    print("\n".join(texts[:-1]))


# --- what the commands share ---------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What is to be scored by what."""

    truth: GroundTruth
    classes: dict[int, str]
    excluded: Any  # frozenset of (video, frame)
    protocol: Protocol | str


@dataclass
class Scored:
    """One scoring as text, as JSON and as what a picture is made of."""

    text: list[str]
    json: Json
    picture: object


def _ava_task(options: argparse.Namespace) -> Task:
    excluded = read_exclusions(options.exclusions) if options.exclusions else frozenset()
    return Task(
        read_groundtruth(options.groundtruth, ANY_CLASS),
        read_label_map(options.labelmap),
        excluded,
        getattr(options, "protocol", Protocol.STANDARD),
    )


def _score(task: Task, found: Detections, options: argparse.Namespace) -> Scored:
    """Frame-mAP and what was asked for beside it."""
    rules: Json = {
        "excluded": task.excluded or frozenset(),
        "protocol": task.protocol,
        "iou": options.iou,
        "plus_one": getattr(options, "plus_one", False),
    }
    given = (task.truth, found, task.classes)
    budget = error_budget(*given, **rules) if options.errors else None
    spread = None
    if options.bootstrap:
        spread = bootstrap(*given, **rules, samples=options.bootstrap, seed=options.seed)
    score = spread.score if spread else budget.score if budget else frame_map(*given, **rules)
    counts = audit(*given, excluded=rules["excluded"])

    text = [summarise(score)]
    if spread:
        text.append(summarise(spread))
    if options.per_class:
        columns: dict[str, Mapping[int, float]] = {"AP": score.ap}
        if spread:
            columns |= {"from": spread.class_low, "to": spread.class_high}
        text.append(class_table(columns, score.classes))
    if budget:
        text.append(summarise(budget))
    text += [f"note: {note}" for note in notes(counts, task.protocol)]
    return Scored(text, _frame_json(score, counts, spread, budget), budget or spread or score)


def _splits(annotations: ActAnnotations, options: argparse.Namespace) -> list[tuple[int, Path]]:
    """The splits to score and the file of each."""
    count = len(annotations.test_videos)
    if options.split == "all":
        if len(options.detections) != count:
            raise ValueError(
                f"--split all needs the detections of {count} models, one file per split in order; "
                f"found {len(options.detections)}"
            )
        return [(i + 1, path) for i, path in enumerate(options.detections)]
    if len(options.detections) != 1:
        raise ValueError(
            f"one split takes one detection file; found {len(options.detections)}. For all: --split all"
        )
    split = _split_number(options.split)
    split_videos(annotations, split)  # refuses a split that is not there
    return [(split, options.detections[0])]


def _split_number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"--split is a number from 1 or, for ucf24 and jhmdb, all; found {text!r}")
    return int(text)


def _hints(found: Detections, *, pixels: bool) -> list[str]:
    """Coordinates in the wrong unit give an mAP near 0, truth for detections one near 100, without a sign."""
    if len(found.box) == 0:
        return ["note: there are no detections"]
    most, hints = float(found.box.max()), []
    if pixels and most <= 1.5:
        hints.append(f"note: no box coordinate is above {most:g}; are they fractions? Pixels are needed")
    if not pixels and np.median(found.box.max(axis=1)) > 1.5:
        hints.append(f"note: box coordinates reach {most:g}; are they pixels? Fractions of 1 are needed")
    if not pixels and (found.score == np.floor(found.score)).all():
        hints.append("note: all scores are whole numbers; are they person ids? Ground truth has those there")
    return hints


# --- JSON ----------------------------------------------------------------------------------------


def _frame_json(score: FrameMap, counts: Audit, spread: Bootstrap | None, budget: ErrorBudget | None) -> Json:
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
        "rows": asdict(counts),
    }
    if spread:
        ends = {i: [_number(spread.class_low[i]), _number(spread.class_high[i])] for i in score.ap}
        result["bootstrap"] = {
            "level": spread.level,
            "samples": spread.samples,
            "seed": spread.seed,
            "num_videos": spread.num_videos,
            "mAP": [_number(spread.low), _number(spread.high)],
            "per_class": _keyed(ends),
        }
    if budget:
        result["errors"] = {
            "background": budget.background,
            "mAP_gain": {cause: _number(price) for cause, price in budget.price.items()},
            "count": budget.count,
            "per_class": _keyed(budget.class_count),
        }
    return result


def _video_json(score: VideoMap) -> Json:
    return {
        **{f"{threshold:g}": _number(value) for threshold, value in score.mAP.items()},
        "0.5:0.95": _number(score.mAP_50_95),
        "protocol": score.protocol,
        "per_class": {f"{threshold:g}": _keyed(ap) for threshold, ap in score.ap.items()},
        "num_ground_truth": score.num_ground_truth,
        "num_detections": score.num_detections,
        "linking": asdict(score.linking) if score.linking else None,
    }


def _comparison_json(found: Comparison) -> Json:
    return {
        "mAP": [_number(found.first.mAP), _number(found.second.mAP)],
        "difference": _number(found.difference),
        "interval": [_number(found.low), _number(found.high)],
        "p_value": _number(found.p_value),
        "per_class": {
            str(i): {
                "AP": [_number(found.first.ap[i]), _number(found.second.ap[i])],
                "difference": _number(found.class_difference[i]),
                "interval": [_number(found.class_low[i]), _number(found.class_high[i])],
                "p_value": _number(found.class_p_value[i]),
            }
            for i in found.class_difference
        },
        "level": found.level,
        "samples": found.samples,
        "seed": found.seed,
        "num_videos": found.num_videos,
    }


def _comparison_table(found: Comparison) -> str:
    """Per class, the greatest gain first."""
    order = sorted(
        (i for i, value in found.class_difference.items() if not isnan(value)),
        key=lambda i: -found.class_difference[i],
    )
    width = max(5, *(len(found.first.classes[i]) for i in order)) if order else 5
    lines = [
        f"{'id':>5}  {'class':<{width}}  {'first':>6}  {'second':>6}  {'change':>7}  "
        f"{f'{100 * found.level:g} % interval':>17}  {'p':>6}"
    ]
    for i in order:
        interval = f"[{100 * found.class_low[i]:+.2f}, {100 * found.class_high[i]:+.2f}]"
        sure = " *" if found.class_p_value[i] < 1 - found.level else ""
        lines.append(
            f"{i:>5}  {found.first.classes[i]:<{width}}  {_percent(found.first.ap[i]):>6}  "
            f"{_percent(found.second.ap[i]):>6}  {100 * found.class_difference[i]:>+7.2f}  {interval:>17}  "
            f"{found.class_p_value[i]:>6.3f}{sure}"
        )
    return "\n".join(lines)


def _mean_of_splits(splits: list[Json]) -> Json:
    """The mean over the splits, of mAP and of each class; the splits themselves beside it."""
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
    names = ("groundtruth", "detections", "labelmap", "exclusions")
    given = {name: getattr(options, name, None) for name in names}
    return {
        name: [str(path) for path in value] if isinstance(value, list) else str(value)
        for name, value in given.items()
        if value is not None
    }


def _percent(value: float | None) -> str:
    return "-" if value is None or isnan(value) else f"{100 * value:.2f}"


def _write(options: argparse.Namespace, result: Json, picture: object, *, curve: Sequence[str] = ()) -> None:
    """The files that were asked for, each whole or not at all; made before the first is written."""
    files: list[tuple[Path, bytes]] = []
    if options.plot:
        drawn = BytesIO()
        plot(picture).savefig(drawn, format=options.plot.suffix[1:].lower() or "png")
        files.append((options.plot, drawn.getvalue()))
    if curve and options.curve:
        files.append((options.curve, "\n".join([*curve, ""]).encode()))
    if options.json:
        files.append((options.json, json.dumps(result, indent=1, allow_nan=False).encode() + b"\n"))
    for path, content in files:
        with replacing(path) as file:
            file.write(content)


# --- options -------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluators",
        description="Frame-mAP, video-mAP and actor precision and recall of action detections.",
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    csv = "AVA csv: video, second, x1, y1, x2, y2, action"
    pickle = "ACT's pickle, such as UCF101v2-GT.pkl"
    rules = "whose rules to count by: docs/evaluators.md"

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str, truth: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run)
        sub.add_argument("--groundtruth", type=Path, required=True, metavar="FILE", help=truth)
        sub.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
        sub.add_argument("--plot", type=Path, metavar="FILE", help="draw the result: .svg, .png, .pdf")
        sub.add_argument("--iou", type=_overlap, default=0.5, help="least overlap of a hit (0.5)")
        return sub

    def extras(sub: argparse.ArgumentParser, known: Sequence[Protocol], usual: Protocol) -> None:
        sub.add_argument(
            "--protocol", type=_protocol, choices=known, default=usual, help=f"{rules} ({usual})"
        )
        sub.add_argument("--per-class", action="store_true", help="print the AP of every class")
        sub.add_argument(
            "--bootstrap", type=_count, metavar="N", help="95 %% intervals from N draws of the videos"
        )
        sub.add_argument("--seed", type=int, default=0, help="of the draws (0)")
        sub.add_argument("--errors", action="store_true", help="what each kind of error costs")

    def ava_files(sub: argparse.ArgumentParser, *, required: bool = True) -> None:
        sub.add_argument("--labelmap", type=Path, required=required, metavar="FILE", help="evaluated classes")
        sub.add_argument("--exclusions", type=Path, metavar="FILE", help="seconds that are not scored")

    sub = command("ava", ava, "AVA frame-mAP from csv files", csv)
    sub.add_argument("--detections", type=Path, required=True, metavar="FILE", help=f"{csv}, with a score")
    ava_files(sub)
    extras(sub, AVA_PROTOCOLS, Protocol.STANDARD)

    for name, title in (("ucf24", "UCF101-24"), ("jhmdb", "JHMDB")):
        sub = command(name, ucf, f"{title} frame-mAP and video-mAP from ACT's pickle", pickle)
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
        sub.add_argument("--plus-one", action="store_true", help="protocol annotated as YOWO counts")
        sub.add_argument("--boxes", choices=("xyxy", "xywh"), default="xyxy", help="the pickle's columns")
        sub.add_argument("--video-map", action="store_true", help="link to tubes and score those, too")
        extras(sub, UCF_PROTOCOLS, Protocol.GURKIRT)

    sub = command("actors", actors, "precision and recall of people, whatever they do", csv)
    persons = "csv of persons: video, second, x1, y1, x2, y2, score"
    sub.add_argument("--detections", type=Path, required=True, metavar="FILE", help=persons)
    ava_files(sub)
    sub.add_argument("--theta", type=float, default=0.2, help="predictions score above this (0.2)")
    sub.add_argument("--curve", type=Path, metavar="FILE", help="write the whole curve there, as csv")

    either = f"{csv}, or {pickle}"
    sub = command("compare", comparison, "runs against the first: per class, paired over videos", either)
    sub.add_argument("detections", type=Path, nargs="+", metavar="FILE", help="of two runs or more")
    ava_files(sub, required=False)
    sub.add_argument(
        "--protocol",
        type=_protocol,
        choices=[*AVA_PROTOCOLS, *UCF_PROTOCOLS],
        help=f"{rules} (standard; gurkirt with a pickle)",
    )
    sub.add_argument("--split", help="with ACT's pickle for ground truth: a number from 1 (1)")
    sub.add_argument("--boxes", choices=("xyxy", "xywh"), default="xyxy", help="the pickle's columns")
    sub.add_argument("--bootstrap", type=_count, default=1000, metavar="N", help="draws of the videos (1000)")
    sub.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    return parser


def _protocol(text: str) -> Protocol | str:
    return Protocol(text) if text in list(Protocol) else text


def _overlap(text: str) -> float:
    value = _float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must lie above 0 and at most at 1; found {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 is needed; found {text!r}")
    return int(text)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return nan


if __name__ == "__main__":
    sys.exit(main())
