"""Many runs under Ray Tune: the one file that knows Ray. No scheduler of our own.

`sweep` gives Ray one trial for each training and waits; a trial runs `benchmarks.run.run` in a
process of its own, and what it reports arrives at `Observer`.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

# Read by Ray when it is imported: no usage reports, no token files, plain output is ours to print.
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_GLOBAL_CHECKPOINT_S="86400",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)

import ray
import torch
from ray import tune

from benchmarks.experiments import Experiment
from benchmarks.run import run
from benchmarks.training import Progress

HANG = 20 * 60.0
"""Seconds without a batch after which a trial is given up: more than a DataLoader waits for a worker."""
TAIL = 6
"""Lines of a failed trial's log that are shown."""
CHECKOUT = Path(__file__).resolve().parent.parent


class Observer(Protocol):
    """Told of what happens, in the calling process. Keys are hashes of trainings."""

    def started(self, key: str) -> None: ...

    def progressed(self, key: str, progress: Progress) -> None: ...

    def finished(self, key: str) -> None: ...

    def failed(self, key: str, reason: str) -> None: ...


@contextmanager
def cluster() -> Iterator[None]:
    """A Ray of our own for the sweeps inside: started once, for it takes seconds, and ended with them."""
    # Workers import this checkout's packages; a private cluster, never somebody else's.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=128 * 2**20,
    )
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def sweep(
    trainings: Mapping[str, Sequence[Experiment]],
    roots: Mapping[str, Path],
    out: Path,
    observer: Observer,
    *,
    gpus: bool,
    weights: Mapping[str, Path] | None = None,
    newer_than: float = 0.0,
    hang: float = HANG,
) -> None:
    """Run every training (hash -> the rows that share it) under `out`, in a `cluster`: one one-thread trial
    a core.

    gpus: one trial for each GPU instead. roots, weights, newer_than: `benchmarks.run.run`'s. A trial that
    fails, dies or hangs (no batch for `hang` seconds) fails alone; `observer` hears of it.
    """
    resources: dict[str, float] = {"cpu": 4, "gpu": 1} if gpus else {"cpu": 1}
    trainable = tune.with_parameters(
        _trial,
        trainings={key: [asdict(exp) for exp in rows] for key, rows in trainings.items()},
        roots={name: str(path.resolve()) for name, path in roots.items()},
        weights={name: str(path.resolve()) for name, path in (weights or {}).items()},
        out=str(out.resolve()),
        newer_than=newer_than,
        hang=hang,
    )
    # Our results are in `runs`; Ray's own records of the sweep are of no use afterwards.
    with tempfile.TemporaryDirectory(prefix="actloc-ray-") as storage:
        tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"trial": tune.grid_search(list(trainings))},
            # A process takes the next trial when it is done with one: a new one takes seconds to import.
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="sweep", storage_path=storage, callbacks=[_Relay(observer, out)], verbose=0
            ),
        ).fit()


def slots(*, gpus: bool) -> int:
    """How many trials run side by side."""
    return torch.cuda.device_count() if gpus else (os.cpu_count() or 1)


def _trial(
    config: dict[str, str],
    trainings: dict[str, list[dict[str, Any]]],
    roots: dict[str, str],
    weights: dict[str, str],
    out: str,
    newer_than: float,
    hang: float,
) -> None:
    """Runs in a Ray worker: one training and its rows, on the device Ray gave it.

    What it prints goes to trial.log of the training's folder, and so does where it was when it hung.
    """
    log = _trial_log(Path(out), config["trial"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

        def alive() -> None:
            faulthandler.dump_traceback_later(hang, exit=True, file=file)

        alive()
        try:
            _run_trial(config["trial"], trainings, roots, weights, out, newer_than, alive)
        finally:
            faulthandler.cancel_dump_traceback_later()


def _trial_log(out: Path, key: str) -> Path:
    return out / "trainings" / key / "trial.log"


def _run_trial(
    key: str,
    trainings: dict[str, list[dict[str, Any]]],
    roots: dict[str, str],
    weights: dict[str, str],
    out: str,
    newer_than: float,
    alive: Callable[[], None],
) -> None:
    rows = [Experiment(**values) for values in trainings[key]]
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
        newer_than=newer_than,
        on_progress=report,
        on_alive=alive,
    )


class _Relay(tune.Callback):
    """Ray's events, as the observer's."""

    def __init__(self, observer: Observer, out: Path) -> None:
        self.observer, self.out = observer, out

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
        error = Path(trial.error_file).read_text() if trial.error_file else ""
        key = trial.config["trial"]
        self.observer.failed(key, reason_of(error, _trial_log(self.out, key)))


def reason_of(error: str, log: Path) -> str:
    """Why a trial failed, in a line, and the end of its log below it.

    error: the traceback that Ray kept. log: what the trial printed, and where it hung.
    """
    printed = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    said = [line for line in error.strip().splitlines() if line.strip()]
    hung = [i for i, line in enumerate(printed) if line.startswith("Timeout (")]
    if hung:
        reason = f"it hung: no batch for {printed[hung[-1]][9:-2]}"
        # A block of lines for each thread, the innermost call first; ours is the one that runs our code.
        threads = "\n".join(printed[hung[-1] + 1 :]).split("\n\n")
        ours = next((thread for thread in threads if str(CHECKOUT) in thread), threads[0])
        return "\n".join([reason, *(f"    {line}" for line in ours.splitlines()[: TAIL + 1])])
    if "OutOfMemoryError" in error:
        reason = "out of memory"
    elif "worker process has died" in error or "ActorDiedError" in error:
        reason = "its process died"
    else:
        reason = said[-1] if said else "no reason was left"
    return "\n".join([reason, *(f"    {line}" for line in printed[-TAIL:])])
