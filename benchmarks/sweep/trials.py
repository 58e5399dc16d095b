"""A sweep: one Ray Tune trial for each training, in a process of its own or in several under Ray Train.

A trial runs `benchmarks.run.run`; its events arrive at an `Observer` in the calling process.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from benchmarks.sweep.cluster import Resources  # isort: skip  (sets what Ray reads when it is imported)

import ray
import ray.train
import ray.train.torch
import ray.util.client
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.queue import Queue

from benchmarks.context import CHECKPOINT_EVERY_S, Callbacks, RunContext, Step
from benchmarks.distributed import rank
from benchmarks.experiments import TRAINING, Experiment
from benchmarks.run import TooManyError, run
from benchmarks.score.provenance import CHECKOUT
from benchmarks.sweep.storage import fetch, send
from benchmarks.train.training import training_lock

WATCHDOG_TIMEOUT_S = 20 * 60.0
"""Seconds without a batch after which a trial is given up: more than a loader waits for its processes."""
LOG_TAIL = 6
"""Lines of a failed trial's log that are shown."""
RETRY_LIMIT = 3
"""How often a trial is started that loses its machine, or that Ray drops before it has started."""

Handler = Callable[..., None]
"""Called with an event's name, the hash of the training it happened to, and more."""


class Observer(Protocol):
    """Notified of a sweep's events, in the calling process. Trainings are named by their hash."""

    def started(self, training: str) -> None:
        """A trial has started."""

    def progressed(self, training: str, step: Step) -> None:
        """It has taken this step."""

    def finished(self, training: str) -> None:
        """It has its results."""

    def failed(self, training: str, reason: str) -> None:
        """It has no results, for this reason."""


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep's trials run."""

    resources: Resources
    """Of each process, see `resources_per_process`."""
    processes: int = 1
    """That share a run."""
    at_once: int | None = None
    """Runs of several processes side by side; those of one are bounded by their resources."""
    mirror: str | None = None
    """URI that files are sent to and fetched from, see `benchmarks.sweep.storage`."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    fresh: str = ""
    checkpoint_every: float = CHECKPOINT_EVERY_S
    """These three are RunContext's."""
    watchdog_timeout: float = WATCHDOG_TIMEOUT_S
    log_to: tuple[str, ...] = ()
    """Where losses and mAP go beside OUT/logs: "wandb", "mlflow"."""


@dataclass(frozen=True)
class _TrialSpec:
    """What the processes of every trial are given. Plain values, for they are sent to other machines."""

    trainings: dict[str, list[dict[str, Any]]]
    roots: dict[str, str]
    out: str
    options: SweepOptions


def sweep(
    trainings: Mapping[str, Sequence[Experiment]],
    roots: Mapping[str, Path],
    out: Path,
    observer: Observer,
    options: SweepOptions,
) -> None:
    """Run every training (hash -> the rows that share it) under `out`, in a `cluster`.

    A trial that fails, dies or hangs (no batch within the watchdog timeout) fails alone, and `observer` is
    notified. One that loses its machine resumes on another from its last checkpoint.
    OUT/logs/<training>/ gets Ray's CSV and TensorBoard logs.
    """
    spec = _TrialSpec(
        trainings={name: [asdict(exp) for exp in rows] for name, rows in trainings.items()},
        roots={name: str(path.resolve()) for name, path in roots.items()},
        out=str(out.resolve()),
        options=options,
    )
    remaining = list(trainings)
    for _ in range(RETRY_LIMIT):
        ended: set[str] = set()

        def on_event(event: str, training: str, *more: Any, ended: set[str] = ended) -> None:
            if event in ("finished", "failed"):
                ended.add(training)
            if event != "lost":
                getattr(observer, event)(training, *more)

        with _event_queue(on_event) as queue:
            results = _tuner(remaining, spec, _EventForwarder(on_event, out.resolve(), queue)).fit()
        # Errors without an event: a lost machine, or a trial that Ray dropped silently because the thread
        # before it did not end. What was stopped with Ctrl-C has no error.
        failed = [result for result in map(results.__getitem__, range(len(results))) if result.error]
        remaining = [name for name in (Path(result.path).name for result in failed) if name not in ended]
        if not remaining:
            return
    for name in remaining:
        observer.failed(name, f"the machine it ran on was lost, or Ray dropped it, {RETRY_LIMIT} times")


def _tuner(trainings: list[str], spec: _TrialSpec, forwarder: tune.Callback) -> tune.Tuner:
    options = spec.options
    alone = options.processes == 1
    # Several processes are started by Ray Train, each with its resources; the trial itself only waits.
    resources = (
        {"cpu": options.resources.num_cpus, "gpu": options.resources.num_gpus} if alone else {"memory": 1.0}
    )
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, spec=spec), resources),
        param_space={"trial": tune.grid_search(trainings)},
        tune_config=tune.TuneConfig(
            # A process takes the next trial when it is done with one: to import takes seconds. Not where
            # trials are counted: Ray would count one it drops, and wait for it without end.
            reuse_actors=alone,
            max_concurrent_trials=None if alone else options.at_once,
            trial_dirname_creator=lambda trial: str(trial.config["trial"]),
        ),
        run_config=tune.RunConfig(
            name="logs", storage_path=spec.out, callbacks=[forwarder, *_loggers(spec)], verbose=0
        ),
    )


def _loggers(spec: _TrialSpec) -> list[tune.Callback]:
    """Ray's own loggers that are asked for; those of csv and TensorBoard it adds itself.

    MLflow writes to MLFLOW_TRACKING_URI; Weights & Biases goes by its own variables.
    """
    loggers: list[tune.Callback] = []
    if "wandb" in spec.options.log_to:
        from ray.air.integrations.wandb import WandbLoggerCallback

        loggers.append(WandbLoggerCallback(project="actloc"))
    if "mlflow" in spec.options.log_to:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ["MLFLOW_TRACKING_URI"]
        loggers.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name="actloc"))
    return loggers


def _trial(config: dict[str, str], spec: _TrialSpec) -> None:
    """Runs in a Ray worker: one training and its rows, on the device Ray gave it."""
    training, options = config["trial"], spec.options
    if options.processes == 1:
        device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
        return _process(training, spec, device, tune.report)
    folder = Path(spec.out) / "trainings" / training
    callbacks: list[Any] = [TuneReportCallback()]  # type: ignore[no-untyped-call]
    # Ray Train wants a folder that its processes, on whatever machines, all see.
    with training_lock(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".ray-") as storage:
        ray.train.torch.TorchTrainer(
            lambda: _process(training, spec, ray.train.torch.get_device(), ray.train.report),
            scaling_config=ray.train.ScalingConfig(
                num_workers=options.processes,
                use_gpu=options.resources.num_gpus > 0,
                resources_per_worker={"CPU": options.resources.num_cpus, "GPU": options.resources.num_gpus},
            ),
            torch_config=ray.train.torch.TorchConfig(timeout_s=round(2 * options.watchdog_timeout)),
            run_config=ray.train.RunConfig(storage_path=storage, callbacks=callbacks),
        ).fit()


def _process(
    training: str, spec: _TrialSpec, device: torch.device, report: Callable[[dict[str, Any]], None]
) -> None:
    """One process of a trial, or its only one. Its output goes to trial.log in the training's directory."""
    options, out = spec.options, Path(spec.out)
    log = _trial_log(out, training)
    log.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(max(1, int(options.resources.num_cpus)))
    rows = [Experiment(**values) for values in spec.trainings[training]]
    # Convolutions are timed once for each size of clip: not where there are many.
    torch.backends.cudnn.benchmark = rows[0].short_sides is None
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        print(f"training {training}", flush=True)
        watchdog, reporter = _Watchdog(options.watchdog_timeout, file), _Reporter(report)
        try:
            if options.mirror:
                for folder in _fetched_folders(rows[0]):
                    fetch(options.mirror, out, folder)
            context = RunContext(
                device=device,
                out=out,
                workers=options.resources.workers,
                readers=options.resources.readers,
                weights=options.weights,
                fresh=options.fresh,
                checkpoint_every=options.checkpoint_every,
            )
            callbacks: list[Callbacks] = [watchdog, reporter]
            if options.mirror:
                callbacks.append(_RemoteSync(options.mirror, out, training))
            _run_and_send(rows, spec, context, callbacks)
            if not reporter.reported:  # trained before: Ray prints a line for a trial without a report
                report({"rows": len(rows)})
        finally:
            watchdog.stop()


def _run_and_send(
    rows: list[Experiment], spec: _TrialSpec, context: RunContext, callbacks: list[Callbacks]
) -> None:
    """Run; then send what was made to the mirror, also where a row of several is refused."""
    mirror = spec.options.mirror
    try:
        run(rows, {name: Path(path) for name, path in spec.roots.items()}, context, callbacks)
    except TooManyError as refused:  # the training and its other rows are done
        try:
            _send_results(mirror, context.out, rows)
        except ValueError as error:
            raise refused from error  # both are reported
        raise
    _send_results(mirror, context.out, rows)


def _send_results(mirror: str | None, out: Path, rows: list[Experiment]) -> None:
    if mirror and rank() == 0:
        for folder in (f"trainings/{rows[0].training_hash}", *(f"runs/{row.hash}" for row in rows)):
            send(mirror, out, folder)


def _fetched_folders(exp: Experiment) -> list[str]:
    """The training's folder, and the one of the training that it is initialised from."""
    folders = [f"trainings/{exp.training_hash}"]
    if (exp.weights or "").startswith(TRAINING):
        folders.append(f"trainings/{(exp.weights or '').removeprefix(TRAINING)}")
    return folders


class _Watchdog(Callbacks):
    """Ends the process, with its threads' stacks in the log, where no batch follows within the timeout."""

    def __init__(self, timeout: float, log: BinaryIO) -> None:
        self.timeout, self.log = timeout, log
        self.on_batch()

    def on_batch(self) -> None:
        """Start the timeout anew."""
        faulthandler.dump_traceback_later(self.timeout, exit=True, file=self.log)

    def stop(self) -> None:
        """The process may take its time from here on."""
        faulthandler.cancel_dump_traceback_later()


class _Reporter(Callbacks):
    """Reports steps to Ray, at most one a second."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.report, self.reported, self.last = report, False, -1.0
        self.validated: dict[str, float | None] = {"mAP": None, "chance": None}

    def on_step(self, step: Step) -> None:
        """All processes of a run see the same numbers, so all report the same steps, as Ray Train wants."""
        if step.mAP is not None:
            self.validated = {"mAP": step.mAP, "chance": step.chance}
        if step.seconds - self.last >= 1 or step.step == step.steps:
            self.last, self.reported = step.seconds, True
            self.report({**asdict(step), **self.validated, "problems": len(step.problems)})


class _RemoteSync(Callbacks):
    """Sends the training's directory to the mirror after each checkpoint, beside the training."""

    def __init__(self, mirror: str, out: Path, training: str) -> None:
        self.mirror, self.out, self.training = mirror, out, training

    def on_saved(self) -> None:
        """A mirror that cannot be written costs copies: the checkpoint is on this machine."""
        try:
            send(self.mirror, self.out, f"trainings/{self.training}")
        except ValueError as error:
            print(error, file=sys.stderr, flush=True)


def _trial_log(out: Path, training: str) -> Path:
    return out / "trainings" / training / "trial.log"


class _EventForwarder(tune.Callback):
    """Forwards Ray's events as (event, training, more), from another machine through a queue."""

    def __init__(self, handler: Handler, out: Path, queue: Queue | None) -> None:
        self.handler, self.out, self.queue = handler, out, queue

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes its callbacks to disk; the handler, a live display perhaps, stays here."""
        return {"out": self.out, "queue": self.queue}

    def _forward(self, event: str, trial: Any, *more: Any) -> None:
        args = (event, trial.config["trial"], *more)
        if self.queue is None:
            self.handler(*args)
        else:
            self.queue.put(args)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._forward("started", trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "steps" in result:
            values = {f.name: result[f.name] for f in fields(Step)} | {"problems": ()}
            self._forward("progressed", trial, Step(**values))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._forward("finished", trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = Path(trial.error_file).read_text() if trial.error_file else ""
        if machine_lost(error):
            self._forward("lost", trial)
        else:
            log = _trial_log(self.out, trial.config["trial"])
            self._forward("failed", trial, failure_reason(error, log))


@contextmanager
def _event_queue(handler: Handler) -> Iterator[Queue | None]:
    """The queue of `_EventForwarder` where we are a client: Tune's loop then runs on the cluster's head."""
    if not ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        yield None
        return
    queue = Queue(actor_options={"num_cpus": 0})

    def listen() -> None:
        while (event := queue.get()) is not None:
            handler(*event)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield queue
    finally:
        queue.put(None)
        listener.join()
        queue.shutdown()


def machine_lost(error: str) -> bool:
    """Whether a trial's traceback says that not it, but its machine failed."""
    return "its node has died" in error or "NodeDiedError" in error


def failure_reason(error: str, log: Path) -> str:
    """Why a trial failed, in a line, followed by the end of its log.

    error: the traceback that Ray kept. log: the trial's output, and its stacks where it hung.
    """
    printed = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    lines = [line for line in error.strip().splitlines() if line.strip()]
    hung = [i for i, line in enumerate(printed) if line.startswith("Timeout (")]
    if hung:
        reason = f"it hung: no batch for {printed[hung[-1]][9:-2]}"
        # A block of lines for each thread, the innermost call first; ours is the one that runs our code.
        threads = "\n".join(printed[hung[-1] + 1 :]).split("\n\n")
        ours = next((thread for thread in threads if str(CHECKOUT) in thread), threads[0])
        return "\n".join([reason, *(f"    {line}" for line in ours.splitlines()[: LOG_TAIL + 1])])
    if any(sign in error for sign in ("OutOfMemoryError", "MemoryError", "can't allocate memory")):
        reason = "out of memory"
    elif "worker process has died" in error or "ActorDiedError" in error:
        reason = "its process died"
    else:
        reason = lines[-1] if lines else "no reason was left"
    return "\n".join([reason, *(f"    {line}" for line in printed[-LOG_TAIL:])])
