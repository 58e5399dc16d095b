"""Text and figures of results: `summarise` and `plot` accept any result of this package.

    score = frame_mAP(ground_truth, detections, classes)
    print(summarise(score))
    plot(score).savefig("ap.svg")
    score.to_frame()

Matplotlib is imported by `plot`, and no display is needed.
"""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from io import BytesIO
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.errors import CAUSES, ErrorBudget
from evaluators.frame_map import FrameMap
from evaluators.jackknife import Comparison, Intervals
from evaluators.linking import LINKINGS
from evaluators.notebook import Columns, columns, of_classes
from evaluators.precision_recall import ActorCurve, ActorScore
from evaluators.video_map import VideoMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FEW = 5
"""Videos, below which the intervals of a simulation cover less than they say."""


@singledispatch
def summarise(result: object) -> str:
    """Summarise a result in a few lines: numbers in per cent, with protocol and threshold.

    TypeError: not a result of an evaluator.
    """
    raise TypeError(f"{type(result).__name__} is not a result of an evaluator")


@singledispatch
def plot(result: object) -> "Figure":
    """Draw a figure of the result, to show or save. TypeError: not a result of an evaluator."""
    raise TypeError(f"{type(result).__name__} is not a result of an evaluator")


def class_table(columns: Mapping[str, Mapping[int, float]], classes: Mapping[int, str]) -> str:
    """Table with one line per class: id, name, then the columns in per cent; a dash for NaN."""
    width = max(5, *(len(name) for name in classes.values()))
    lines = [f"{'id':>5}  {'class':<{width}}" + "".join(f"  {name:>8}" for name in columns)]
    for class_id, name in classes.items():
        numbers = "".join(f"  {percent(values[class_id]):>8}" for values in columns.values())
        lines.append(f"{class_id:>5}  {name:<{width}}" + numbers)
    return "\n".join(lines)


def comparison_table(result: Comparison) -> str:
    """Table of a comparison with one line per class in the ground truth, the greatest gain first."""
    known = [i for i, value in result.class_difference.items() if not isnan(value)]
    known.sort(key=lambda i: -result.class_difference[i])
    names = result.first.classes
    width = max([5, *(len(names[i]) for i in known)])
    lines = [
        f"{'id':>5}  {'class':<{width}}  {'first':>6}  {'second':>6}  {'change':>7}  "
        f"{f'{100 * result.level:g} % interval':>17}  {'p':>6}"
    ]
    for i in known:
        interval, p, star = "-", "-", ""
        if not isnan(result.class_p_value[i]):  # else its ground truth is in one video
            interval = f"[{100 * result.class_low[i]:+.2f}, {100 * result.class_high[i]:+.2f}]"
            p = f"{result.class_p_value[i]:.3f}"
            star = " *" if result.class_p_value[i] < 1 - result.level else ""
        lines.append(
            f"{i:>5}  {names[i]:<{width}}  {percent(result.first.ap[i]):>6}  "
            f"{percent(result.second.ap[i]):>6}  {100 * result.class_difference[i]:>+7.2f}  {interval:>17}  "
            f"{p:>6}{star}"
        )
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A fraction in per cent with two decimals; a dash for NaN and None."""
    return "-" if value is None or isnan(value) else f"{100 * value:.2f}"


# --- text ----------------------------------------------------------------------------------------


@summarise.register(FrameMap)
def _(score: FrameMap) -> str:
    return (
        f"frame-mAP {percent(score.mAP)} %   ({_rules(score)}, mean of {score.num_classes} classes)\n"
        f"{score.num_ground_truth:,} ground-truth boxes, {score.num_detections:,} detections, "
        f"{score.num_true_positives:,} true positives"
    )


@summarise.register(VideoMap)
def _(score: VideoMap) -> str:
    numbers = [f"@{threshold:g} {percent(score.mAP[threshold])}" for threshold in _shown(score)]
    numbers += [f"@{name} {percent(mean)}" for name, mean in score.means.items()]
    names = [name for name, known in LINKINGS.items() if known == score.linking]
    how = f" by {names[0]}'s rules" if names else ""
    source = f"linked from frame detections{how}" if score.linking else "as given"
    return (
        f"video-mAP {'   '.join(numbers)} %   (protocol {score.protocol}, mean of {score.num_classes} "
        f"classes)\n{score.num_ground_truth:,} ground-truth tubes, {score.num_detections:,} detected tubes, "
        f"{source}"
    )


@summarise.register(ActorScore)
def _(score: ActorScore) -> str:
    return (
        f"actors at theta {score.theta:g}: precision {percent(score.precision)} %, recall "
        f"{percent(score.recall)} %   (IoU {score.iou:g})\n"
        f"{score.actors:,} actors, {score.true_positives:,} true positives, {score.false_positives:,} "
        f"false positives"
    )


@summarise.register(ActorCurve)
def _(curve: ActorCurve) -> str:
    shown = [i for i in _spread(len(curve.theta), 10) if not isnan(curve.precision[i])]
    lines = [f"{'theta':>8}  {'precision':>9}  {'recall':>9}"]
    lines += [
        f"{curve.theta[i]:>8.4f}  {percent(curve.precision[i]):>9}  {percent(curve.recall[i]):>9}"
        for i in shown
    ]
    return "\n".join(lines)


@summarise.register(ErrorBudget)
def _(budget: ErrorBudget) -> str:
    width = max(len(cause) for cause in CAUSES)
    lines = [
        f"error budget: mAP gain if one cause alone is corrected   ({_rules(budget.score)}, background "
        f"below IoU {budget.background:g})"
    ]
    for cause in CAUSES:
        what = "ground-truth boxes" if cause == "missed" else "detections"
        gain = "-" if isnan(budget.mAP_gain[cause]) else f"{100 * budget.mAP_gain[cause]:+.2f}"
        lines.append(f"  {cause:<{width}}  {gain:>7} mAP   {budget.count[cause]:>11,} {what}")
    return "\n".join(lines)


@summarise.register(Intervals)
def _(result: Intervals) -> str:
    single = sum(videos == 1 for videos in result.class_videos.values())
    if result.num_videos < 2:
        return f"no interval: ground truth is in {result.num_videos} video, and videos are what is left out"
    return (
        f"frame-mAP, {100 * result.level:g} % interval: {percent(result.low)} to {percent(result.high)}   "
        f"(jackknife over {result.num_videos} videos)" + _few(result.num_videos, single)
    )


@summarise.register(Comparison)
def _(result: Comparison) -> str:
    known = {i: p for i, p in result.class_p_value.items() if not isnan(p)}
    better = sum(p < 1 - result.level and result.class_difference[i] > 0 for i, p in known.items())
    worse = sum(p < 1 - result.level and result.class_difference[i] < 0 for i, p in known.items())
    numbers = f"{percent(result.first.mAP)} -> {percent(result.second.mAP)}"
    scores = f"frame-mAP {numbers} %   ({_rules(result.first)})\n"
    if result.num_videos < 2:
        return (
            f"{scores}difference {100 * result.difference:+.2f}; no interval and no p-value: ground truth is "
            f"in {result.num_videos} video, and videos are what is left out"
        )
    return (
        f"{scores}difference {100 * result.difference:+.2f}, {100 * result.level:g} % interval "
        f"[{100 * result.low:+.2f}, {100 * result.high:+.2f}], p = {result.p_value:.3g}   "
        f"(paired jackknife over {result.num_videos} videos)\n"
        f"classes with p < {1 - result.level:.2g}: {better} better, {worse} worse, of {len(known)}; about "
        f"{(1 - result.level) * len(known):.1f} are expected by chance"
        + _few(result.num_videos, sum(videos == 1 for videos in result.class_videos.values()))
    )


def _few(videos: int, single: int) -> str:
    """What few videos do not allow: nothing where they suffice."""
    text = ""
    if videos < FEW:
        text += f"\nnote: {videos} videos are too few for an interval that holds what it says"
    if single:
        text += f"\nnote: classes with ground truth in one video alone: {single}, without an interval"
    return text


# --- columns -------------------------------------------------------------------------------------


@columns.register(FrameMap)
def _(score: FrameMap) -> Columns:
    return of_classes(score.classes, {"AP": score.ap})


@columns.register(Intervals)
def _(result: Intervals) -> Columns:
    shares = {"AP": result.score.ap, "low": result.class_low, "high": result.class_high}
    return of_classes(result.score.classes, shares, {"videos": result.class_videos})


@columns.register(Comparison)
def _(result: Comparison) -> Columns:
    shares = {
        "first": result.first.ap,
        "second": result.second.ap,
        "difference": result.class_difference,
        "low": result.class_low,
        "high": result.class_high,
    }
    made = of_classes(result.first.classes, shares, {"videos": result.class_videos})
    made.columns["p_value"] = list(result.class_p_value.values())
    return Columns(made.index, made.index_name, made.columns, made.counts | {"p_value"})


@columns.register(VideoMap)
def _(score: VideoMap) -> Columns:
    by_class = {
        name: [score.ap[threshold][i] for threshold in score.mAP] for i, name in score.classes.items()
    }
    return Columns(tuple(score.mAP), "threshold", {"mAP": list(score.mAP.values()), **by_class})


@columns.register(ErrorBudget)
def _(budget: ErrorBudget) -> Columns:
    made: dict[str, list[Any]] = {
        "mAP_gain": [budget.mAP_gain[cause] for cause in CAUSES],
        "count": [budget.count[cause] for cause in CAUSES],
    }
    return Columns(CAUSES, "cause", made, frozenset({"count"}))


@columns.register(ActorScore)
def _(score: ActorScore) -> Columns:
    shares = ("precision", "recall")
    counts = ("true_positives", "false_positives", "actors")
    made = {name: [getattr(score, name)] for name in (*shares, *counts)}
    return Columns((score.theta,), "theta", made, frozenset(counts))


@columns.register(ActorCurve)
def _(curve: ActorCurve) -> Columns:
    made = {"precision": curve.precision.tolist(), "recall": curve.recall.tolist()}
    return Columns(tuple(curve.theta.tolist()), "theta", made)


# --- figures -------------------------------------------------------------------------------------


@plot.register(FrameMap)
def _(score: FrameMap) -> "Figure":
    figure, axes = _axes(len(score.ap))
    _bars(axes, score.ap, score.classes)
    axes.axvline(100 * score.mAP, color="0.3", linestyle="--", linewidth=1)
    axes.set_xlabel(f"AP in % (mean {percent(score.mAP)}; {_rules(score)})")
    return figure


@plot.register(Intervals)
def _(result: Intervals) -> "Figure":
    figure, axes = _axes(len(result.score.ap))
    ends = {i: (result.class_low[i], result.class_high[i]) for i in result.score.ap}
    _bars(axes, result.score.ap, result.score.classes, ends)
    axes.axvspan(100 * result.low, 100 * result.high, color="0.85", zorder=0)
    axes.set_xlabel(
        f"AP in %, {100 * result.level:g} % intervals over {result.num_videos} videos; grey: mAP "
        f"[{percent(result.low)}, {percent(result.high)}]"
    )
    return figure


@plot.register(Comparison)
def _(result: Comparison) -> "Figure":
    figure, axes = _axes(len(result.class_difference))
    ends = {i: (result.class_low[i], result.class_high[i]) for i in result.class_difference}
    _bars(axes, result.class_difference, result.first.classes, ends)
    axes.axvline(0, color="0.3", linewidth=1)
    axes.set_xlabel(f"difference in AP, points (mAP {100 * result.difference:+.2f}; {_rules(result.first)})")
    return figure


@plot.register(ErrorBudget)
def _(budget: ErrorBudget) -> "Figure":
    figure, axes = _axes(len(CAUSES))
    named = dict(enumerate(CAUSES))
    _bars(axes, {i: budget.mAP_gain[cause] for i, cause in named.items()}, named, ordered=False)
    axes.set_xlabel(f"mAP gain if corrected, points ({_rules(budget.score)})")
    return figure


@plot.register(VideoMap)
def _(score: VideoMap) -> "Figure":
    figure, axes = _axes(8)
    axes.plot(list(score.mAP), [100 * value for value in score.mAP.values()], marker="o")
    axes.set_xlabel("threshold of tube overlap")
    axes.set_ylabel("video-mAP in %")
    axes.set_ylim(0, 100)
    return figure


@plot.register(ActorCurve)
def _(curve: ActorCurve) -> "Figure":
    figure, axes = _axes(8)
    axes.plot(curve.theta, 100 * curve.precision, label="precision")
    axes.plot(curve.theta, 100 * curve.recall, label="recall")
    axes.set_xlabel("theta")
    axes.set_ylabel("%")
    axes.set_ylim(0, 100)
    axes.legend()
    return figure


@plot.register(ActorScore)
def _(score: ActorScore) -> "Figure":
    figure, axes = _axes(3)
    named = {0: "precision", 1: "recall"}
    _bars(axes, {0: score.precision, 1: score.recall}, named, ordered=False)
    axes.set_xlabel(f"% at theta {score.theta:g}")
    return figure


def _axes(lines: int) -> tuple["Figure", "Axes"]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot draws with matplotlib, which is not installed: pip install matplotlib"
        ) from error

    class Shown(Figure):
        """A figure that Jupyter shows by itself, without pyplot and its global state."""

        def _repr_png_(self) -> bytes:
            image = BytesIO()
            self.savefig(image, format="png")
            return image.getvalue()

    figure = Shown(figsize=(7, 1.2 + 0.18 * max(lines, 12)), layout="constrained")
    return figure, figure.subplots()


def _bars(
    axes: "Axes",
    values: Mapping[int, float],
    names: Mapping[int, str],
    ends: Mapping[int, tuple[float, float]] | None = None,
    *,
    ordered: bool = True,
) -> None:
    """Horizontal bars in per cent, the greatest on top; NaN are left out."""
    known = [i for i, value in values.items() if not isnan(value)]
    if ordered:
        known.sort(key=lambda i: -values[i])
    at = np.arange(len(known))
    length = np.array([100 * values[i] for i in known])
    axes.barh(at, length, height=0.7)
    if ends is not None and known:
        low, high = 100 * np.array([ends[i] for i in known]).T
        axes.hlines(at, low, high, color="0.2", linewidth=1)
    axes.set_yticks(at, [names[i] for i in known], fontsize="small")
    axes.invert_yaxis()
    axes.margins(y=0.01)


# --- helpers -------------------------------------------------------------------------------------


def _rules(score: FrameMap) -> str:
    pixel = " with +1 pixel" if score.plus_one else ""
    return f"protocol {score.protocol}{pixel}, IoU {score.iou:g}"


def _shown(score: VideoMap) -> Sequence[float]:
    usual = [threshold for threshold in (0.2, 0.5, 0.75) if threshold in score.mAP]
    return usual or list(score.mAP)


def _spread(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly from first to last."""
    return sorted({round(i * (length - 1) / max(count - 1, 1)) for i in range(count)}) if length else []
