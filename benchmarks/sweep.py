"""Many runs under Ray Tune: the one file that knows Ray. No scheduler of our own.

`sweep` gives Ray one trial for each training and waits; a trial runs `benchmarks.run.run` in a
process of its own, and what it reports arrives at `Observer`.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

# Read by Ray when it is imported: no usage reports, no token files, plain output is ours to print.
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_GLOBAL_CHECKPOINT_S="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)

import ray
import torch
from ray import tune

from benchmarks.experiments import Experiment
from benchmarks.run import Progress, run

CHECKOUT = Path(__file__).resolve().parent.parent


class Observer(Protocol):
    """Told of what happens, in the calling process. Keys are hashes of trainings."""

    def started(self, key: str) -> None: ...

    def progressed(self, key: str, progress: Progress) -> None: ...

    def finished(self, key: str) -> None: ...

    def failed(self, key: str, reason: str) -> None: ...


def sweep(
    trainings: Mapping[str, Sequence[Experiment]],
    roots: Mapping[str, Path],
    out: Path,
    observer: Observer,
    *,
    gpus: bool,
    weights: Mapping[str, Path] | None = None,
) -> None:
    """Run every training (hash -> the rows that share it) under `out`: one one-thread trial a core.

    gpus: one trial for each GPU instead. roots, weights: `benchmarks.run.run`'s. A failing trial
    fails alone; `observer` hears of it.
    """
    if not ray.is_initialized():
        # Workers import this checkout's packages; a private cluster, never somebody else's.
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])
        )
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=128 * 2**20,
        )
    logging.getLogger("ray").setLevel(logging.ERROR)
    resources: dict[str, float] = {"cpu": 4, "gpu": 1} if gpus else {"cpu": 1}
    trainable = tune.with_parameters(
        _trial,
        trainings={key: [asdict(exp) for exp in rows] for key, rows in trainings.items()},
        roots={name: str(path.resolve()) for name, path in roots.items()},
        weights={name: str(path.resolve()) for name, path in (weights or {}).items()},
        out=str(out.resolve()),
    )
    try:
        # Our results are in `runs`; Ray's own records of the sweep are of no use afterwards.
        with tempfile.TemporaryDirectory(prefix="actloc-ray-") as storage:
            tune.Tuner(
                tune.with_resources(trainable, resources),
                param_space={"trial": tune.grid_search(list(trainings))},
                run_config=tune.RunConfig(
                    name="sweep", storage_path=storage, callbacks=[_Relay(observer)], verbose=0
                ),
            ).fit()
    finally:
        ray.shutdown()


def slots(*, gpus: bool) -> int:
    """How many trials run side by side."""
    return torch.cuda.device_count() if gpus else (os.cpu_count() or 1)


def _trial(
    config: dict[str, str],
    trainings: dict[str, list[dict[str, Any]]],
    roots: dict[str, str],
    weights: dict[str, str],
    out: str,
) -> None:
    """Runs in a Ray worker: one training and its rows, on the device Ray gave it."""
    rows = [Experiment(**values) for values in trainings[config["trial"]]]
    cuda = bool(ray.get_gpu_ids())
    torch.set_num_threads(1 if not cuda else 4)
    reported = -1.0

    def report(progress: Progress) -> None:
        nonlocal reported
        if progress.seconds - reported >= 1 or progress.step == progress.steps:
            reported = progress.seconds
            tune.report(asdict(progress))

    run(
        rows,
        {name: Path(path) for name, path in roots.items()},
        Path(out),
        weights={name: Path(path) for name, path in weights.items()},
        device=torch.device("cuda" if cuda else "cpu"),
        workers=3 if cuda else 0,
        on_progress=report,
    )


class _Relay(tune.Callback):
    """Ray's events, as the observer's."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes its callbacks to disk; the observer, a live display perhaps, stays here."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.observer.started(trial.config["trial"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "steps" in result:
            fields = {name: result[name] for name in Progress.__dataclass_fields__}
            self.observer.progressed(trial.config["trial"], Progress(**fields))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.observer.finished(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = Path(trial.error_file).read_text().strip().splitlines() if trial.error_file else []
        self.observer.failed(trial.config["trial"], lines[-1] if lines else "no reason was left")
