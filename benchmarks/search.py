"""`nox -s search`: tune a row's loss weights, no-actor weight, learning rate and theta.

Optuna proposes, ASHA stops what falls behind, and both see training data alone: every fifth training video is
held out, and what a trial is judged by is its frame-mAP there. OUT/search/<row>/ gets trials.csv, a line for
each finished trial, and winner.txt, an Experiment to paste into benchmarks/experiments.py. The same command
goes on with the trials that are in trials.csv. What the machine does in which order decides what Optuna
knows when it proposes: two searches are alike, not the same.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.ablations import check_data, data_roots, positive, weight_files
from benchmarks.actors import above
from benchmarks.data import PROTOCOLS, benchmark, frame_ap, load_data
from benchmarks.engine import Step, fit, predict, true_boxes
from benchmarks.experiments import OURS, ROWS, SCALES, Experiment, choose, rows_at
from benchmarks.models import begin_with, build_model, weights_file
from benchmarks.results import CURVE_THETA, save
from datasets.split import Split, hold_out_videos, subsample

SPACE: dict[str, tuple[float, float]] = {
    "l1": (1.0, 20.0),
    "giou": (0.5, 8.0),
    "actor": (0.5, 8.0),
    "action": (1.5, 24.0),
    "eos_coef": (0.02, 0.5),
}
"""Field of an Experiment -> range, drawn log-uniformly: a factor of four and more about the paper's."""
LR = 4.0
"""The learning rate is drawn between a row's own divided and multiplied by this."""
THETAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Asked of each trained model: a threshold costs no training."""
LOOKS = 4
"""How often a training is judged, at even distances; the last time at its end."""
HELD_OUT = 5
"""Every so many-th training video is held out."""
CLIPS = 240
"""Held-out keyframes of a look."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> the exit status."""
    args = parser().parse_args(argv)
    try:
        [row] = choose([args.row])
        exp = rows_at(args.scale, seed=args.seed)[row]
        roots = data_roots(args.data, {row: exp}, args.out / "data")
        weights = weight_files(
            args.weights, {exp.hash: exp}, args.out / "weights" if args.pretrained else None
        )
        check_data({exp.hash: exp}, roots)
        beginning = weights_file(exp, weights, args.out / "trainings")
        if beginning is not None and not beginning.exists():
            raise FileNotFoundError(f"{beginning}: the training that {row} begins with is not there")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    folder = args.out / "search" / f"{row.replace('/', '_')}_{args.scale}_{exp.hash}"
    folder.mkdir(parents=True, exist_ok=True)
    log = TrialLog(folder / "trials.csv", space_of(exp))
    left = args.trials - len(log.trials)
    print(
        f"{row} at scale {args.scale}: {len(log.trials)} trials are there, {max(left, 0)} to come", flush=True
    )
    if left > 0:
        print("starting Ray ...", flush=True)
        from benchmarks.sweep import Question, cluster, search, share_of

        with cluster(args.address) as machines:
            share, at_once = share_of([machine["Resources"] for machine in machines])
            search(
                Question(
                    asdict(exp),
                    {name: str(path.resolve()) for name, path in roots.items()},
                    None if beginning is None else str(beginning.resolve()),
                ),
                log.space,
                log,
                trials=left,
                looks=LOOKS,
                seed=args.seed,
                share=share,
                at_once=at_once,
                logs=folder,
            )
    if not log.trials:
        print("no trial has finished", file=sys.stderr)
        return 1
    print(log.table())
    winner = pasted(row, exp, max(log.trials, key=lambda trial: trial["mAP"]), args.scale)
    save(folder / "winner.txt", lambda path: path.write_text(winner))
    print(f"\n{winner}\nwritten to {folder / 'winner.txt'}; all trials: {log.path}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.search",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--row", default="2b/two_c_t", metavar="ROW", help="table/row (default: 2b/two_c_t)")
    p.add_argument("--scale", choices=SCALES, default="tiny", help="size of every trial (default: tiny)")
    p.add_argument("--trials", type=positive, default=16, metavar="N", help="in all (default: 16)")
    p.add_argument("--seed", type=int, default=0, help="of the proposals and the trainings (default: 0)")
    p.add_argument("--data", action="append", default=[], metavar="NAME=FOLDER", help="where a dataset lies")
    p.add_argument(
        "--weights", action="append", default=[], metavar="NAME=FILE", help="published weights to begin with"
    )
    p.add_argument("--pretrained", action="store_true", help="download published weights that are not named")
    p.add_argument("--address", metavar="RAY", help="of a running Ray cluster to join")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder of all that is made (default: out)")
    return p


def space_of(exp: Experiment) -> dict[str, tuple[float, float]]:
    """From where to where each tuned field is drawn, the learning rate around the row's own."""
    return SPACE | {"lr": (exp.lr / LR, exp.lr * LR)}


class TrialLog:
    """trials.csv: the finished trials, each a field's value for each of the space, then looks, theta, mAP."""

    def __init__(self, path: Path, space: Mapping[str, tuple[float, float]]) -> None:
        self.path, self.space = path, dict(space)
        self.columns = [*space, "looks", "theta", "mAP"]
        self.trials: list[dict[str, float]] = []
        if path.exists():
            with open(path, newline="") as file:
                for number, line in enumerate(csv.DictReader(file), 2):
                    try:
                        self.trials.append({name: float(line[name]) for name in self.columns})
                    except (KeyError, TypeError, ValueError) as error:
                        raise ValueError(
                            f"{path}, line {number}: not a trial of this search ({error}); delete the file"
                        ) from error

    def add(self, trial: Mapping[str, float]) -> None:
        """A finished trial, kept at once. One whose looks are not all was stopped early."""
        self.trials.append({name: float(trial[name]) for name in self.columns})
        last = self.trials[-1]
        values = ", ".join(f"{name} {last[name]:.3g}" for name in self.space)
        print(
            f"trial {len(self.trials)}: mAP {100 * last['mAP']:.1f} after look {last['looks']:g} ({values})"
        )

        def write(part: Path) -> None:
            with open(part, "w", newline="") as file:
                lines = csv.DictWriter(file, self.columns, lineterminator="\n")
                lines.writeheader()
                lines.writerows(self.trials)

        save(self.path, write)

    def table(self) -> str:
        """The trials, best first."""
        ranked = sorted(self.trials, key=lambda trial: -trial["mAP"])
        head = " ".join(f"{name:>9}" for name in self.columns)
        return "\n".join([head, *(" ".join(f"{t[name]:9.4g}" for name in self.columns) for t in ranked)])


def pasted(row: str, exp: Experiment, trial: Mapping[str, float], scale: str) -> str:
    """A trial as a line of benchmarks/experiments.py, below what is to be known of it."""
    fields = {name: float(f"{trial[name]:.3g}") for name in space_of(exp)} | {"theta": trial["theta"]}
    changes = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    base = "OURS" if ROWS[row] == OURS else f"ROWS[{row!r}]"
    if scale != "paper":  # which has a recipe of its own: the numbers are for that one
        base = f"at_scale({base}, {scale!r})"
    return (
        f"# {row} at scale {scale}: frame-mAP {100 * trial['mAP']:.1f} on held-out training videos\n"
        f"replace({base}, {changes})\n"
    )


def try_out(
    exp: Experiment,
    roots: Mapping[str, Path],
    beginning: Path | None,
    *,
    device: torch.device,
    workers: int,
    report: Callable[[dict[str, float]], None],
) -> None:
    """One trial: train on the training videos but those held out, and report of each look at these.

    A report: looks so far, the best theta, and the frame-mAP (fraction) at it.
    """
    rest, held_out = hold_out_videos(load_data(exp, roots).train, every=HELD_OUT)
    held_out = subsample(held_out, CLIPS)
    torch.manual_seed(exp.seed)
    model = build_model(exp, len(rest.classes))
    if beginning is not None:
        begin_with(model, beginning)
    model.to(device)

    def on_step(step: Step) -> None:
        looks = [round(step.steps * look / LOOKS) for look in range(1, LOOKS + 1)]
        if step.step in looks:
            theta, mAP = best_theta(model, held_out, exp, device, workers)
            report({"looks": looks.index(step.step) + 1, "theta": theta, "mAP": mAP})

    fit(model, rest, exp, device, workers=workers, on_step=on_step)


def best_theta(
    model: torch.nn.Module, split: Split, exp: Experiment, device: torch.device, workers: int
) -> tuple[float, float]:
    """-> (theta, frame-mAP) of the best of THETAS."""
    found = predict(
        model,
        split,
        device,
        theta=CURVE_THETA,
        score=exp.score,
        batch=exp.batch,
        nms_iou=exp.nms_iou,
        given={key: true_boxes(split.annotations.at(key)) for key in split.keyframes},
        keep_aspect=exp.short_sides is not None,
        bf16=exp.bf16,
        workers=workers,
    )
    scored = {theta: frame_ap(split, above(found, theta), PROTOCOLS[benchmark(exp)]).mAP for theta in THETAS}
    best = max(scored, key=lambda theta: scored[theta])
    return best, scored[best]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
