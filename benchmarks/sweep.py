"""Many runs under Ray: the one file that knows Ray. No scheduler of our own.

`sweep` gives Ray Tune one trial for each training and waits. A trial runs `benchmarks.run.run` in a process
of its own, or under Ray Train in several that share the run; what it reports arrives at `Observer`.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

# Read by Ray when it is imported: no usage reports, no token files, plain output is ours to print. Its own
# record of the sweep, which we do not use, is written once a day instead of at every turn of its loop. A
# process gets its next trial when the thread of the last has ended; 2 seconds for that, as Ray has it, are
# too few on a busy machine.
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_GLOBAL_CHECKPOINT_S="86400",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_FUNCTION_THREAD_TIMEOUT_S="60",
)

import ray
import ray.train
import ray.train.torch
import ray.util.client
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmarks import processes
from benchmarks.experiments import TRAINING, Experiment
from benchmarks.mirror import fetch, send
from benchmarks.provenance import COMMIT, git_commit
from benchmarks.run import TooManyError, run
from benchmarks.training import STATE_EVERY, Progress, training_lock

HANG = 20 * 60.0
"""Seconds without a batch after which a trial is given up: more than a DataLoader waits for a worker."""
TAIL = 6
"""Lines of a failed trial's log that are shown."""
LOST = 3
"""How often a trial is begun that loses the machine it runs on, or that Ray drops before it has begun."""
CPUS = 4
"""Cores of a process with a GPU, where there are as many: itself and three that read clips."""
START = 5 * 60.0
"""Seconds in which a private cluster's first process has to be there."""
CHECKOUT = Path(__file__).resolve().parent.parent

Heard = Callable[..., None]
"""Called with what has happened, the hash of the training it happened to, and more."""


class Observer(Protocol):
    """Told of what happens, in the calling process. Keys are hashes of trainings."""

    def started(self, key: str) -> None:
        """A trial begins."""

    def progressed(self, key: str, progress: Progress) -> None:
        """It is so far."""

    def finished(self, key: str) -> None:
        """It has its results."""

    def failed(self, key: str, reason: str) -> None:
        """It has none, for this reason."""


@contextmanager
def cluster(address: str | None = None) -> Iterator[list[dict[str, Any]]]:
    """Ray for the sweeps inside, begun once, for it takes seconds; -> its machines, as `ray.nodes` tells.

    address: of a running cluster to join, "auto" for the one of this machine; this checkout's code travels
    to its machines. None: a private one, which ends with the context.
    Raises ValueError where no cluster answers, or a private one starts no process.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # Workers import this checkout's packages; a private cluster, never somebody else's.
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])
        )
        os.environ.update(_rounding())
        if (python := shlex.quote(sys.executable)) != sys.executable:  # Ray gives it to a shell as it is
            quiet["runtime_env"] = {"py_executable": python}
        ray.init(address="local", include_dashboard=False, object_store_memory=128 * 2**20, **quiet)
    else:
        try:
            if address != "auto":  # Ray would try for minutes
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            _join(address, runtime_env=_travels(), **quiet)
        except (OSError, ValueError) as error:  # a ConnectionError is an OSError
            raise ValueError(f"no Ray cluster answers at {address!r}: {error}") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if address is None:
            _wait_for_a_process()
        yield [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def _wait_for_a_process() -> None:
    """Ray itself would start processes that die at once, again and again and without a word."""
    try:
        ray.get(ray.remote(lambda: None).remote(), timeout=START)
    except ray.exceptions.GetTimeoutError:
        session = Path(ray.nodes()[0]["RayletSocketName"]).parents[1]  # type: ignore[no-untyped-call]
        raise ValueError(
            f"Ray starts no process here, not in {START:g} seconds; why is in {session}/logs/raylet.err"
        ) from None


def _join(address: str, **options: Any) -> None:
    """ray.init; up to twice more where the server a head starts for a client took longer than Ray waits."""
    for left in (2, 1, 0):
        try:
            ray.init(address=address, **options)
            return
        except ConnectionError as error:
            if not left or not address.startswith("ray://"):
                raise
            print(f"{address}: {error}; once more", file=sys.stderr, flush=True)
            ray.shutdown()
            time.sleep(5)


def _travels() -> dict[str, Any]:
    """A Ray runtime environment: the packages of this checkout, and nothing that was made in it."""
    kept = {"actloc_core", "benchmarks", "datasets", "evaluators", "reports", "pyproject.toml"}
    return {
        "working_dir": str(CHECKOUT),
        "excludes": [f"/{path.name}" for path in sorted(CHECKOUT.iterdir()) if path.name not in kept],
        "env_vars": {COMMIT: git_commit()} | _rounding(),
    }


def _rounding() -> dict[str, str]:
    """Variables for trials on processors with AVX-512, which then round sums as those with AVX2 do.

    Sums rounded otherwise move a tiny row as much as another seed does. Read at a process's first use of
    torch; those that are set already are left as they are.
    """
    processor = Path("/proc/cpuinfo")
    if not processor.exists() or "avx512f" not in processor.read_text():
        return {}
    wanted = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


@dataclass(frozen=True)
class Share:
    """What each process of a run gets of a machine."""

    cpus: float
    gpus: float


def share_of(
    machines: Sequence[Mapping[str, float]], *, processes: int = 1, gpus_each: float | None = None
) -> tuple[Share, int]:
    """-> (what a process gets, how many runs fit side by side).

    machines: the "CPU" and "GPU" that each has. processes: that share a run. gpus_each: for each of them, a
    fraction where several runs are to share a GPU; None is 1 where there are GPUs, else 0.
    Raises ValueError where no run fits, which Ray would wait for without end.
    """
    gpus = max((machine.get("GPU", 0.0) for machine in machines), default=0.0)
    wanted = gpus_each if gpus_each is not None else min(gpus, 1.0)
    if wanted < 0 or wanted > 1:
        raise ValueError(f"a process uses at most one GPU, not {wanted:g}; for more give more processes")
    if wanted == 0:
        share = Share(1.0, 0.0)
    else:
        able = [m for m in machines if m.get("GPU", 0.0) >= wanted]
        cores = min((m.get("CPU", 0.0) / m["GPU"] for m in able), default=0.0)
        share = Share(min(float(CPUS), cores) * wanted, wanted)
    places = sum(
        int(min([m.get("CPU", 0.0) / share.cpus] + ([m.get("GPU", 0.0) / wanted] if wanted else [])) + 1e-9)
        for m in machines
        if share.cpus and m.get("GPU", 0.0) >= wanted
    )
    if places < processes:
        has = ", ".join(f"{m.get('CPU', 0):g} cores and {m.get('GPU', 0):g} GPUs" for m in machines)
        raise ValueError(
            f"a run asks for {processes} x ({share.cpus or 1:g} cores, {wanted:g} GPUs), which nobody can "
            f"serve: there is {has or 'no machine'}"
        )
    return share, places // processes


def check_storage(
    machines: Sequence[Mapping[str, Any]], out: Path, needed: Sequence[Path], *, mirror: str | None = None
) -> None:
    """Look from every machine for what is written into `out` (or its mirror) here, and for what is needed.

    Raises ValueError naming the machine and what it does not see.
    """
    seen = f".seen-from-here-{uuid.uuid4().hex}"
    mark = out.resolve() / seen / "mark"
    mark.parent.mkdir(parents=True)
    mark.touch()
    if mirror:
        send(mirror, out, seen)
    paths = [str(path.resolve()) for path in needed]
    try:
        looks = {
            node["NodeManagerHostname"]: ray.remote(_unseen)
            .options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            )
            .remote(paths, str(out.resolve()), seen, mirror)
            for node in machines
        }
        for host, unseen in looks.items():
            if missing := ray.get(unseen):
                what = [f"what is written to {mirror or out.resolve()}" if p == seen else p for p in missing]
                raise ValueError(
                    f"machine {host} does not see {', '.join(what)}: the data and --out must lie on storage "
                    "that all machines have under the same path; for --out a --mirror will do"
                )
    finally:
        shutil.rmtree(mark.parent)
        if mirror:
            send(mirror, out, seen)  # nothing is there any more: it goes


def _unseen(paths: list[str], out: str, seen: str, mirror: str | None) -> list[str]:
    """Runs on a machine: what of all this is not there."""
    unseen = [path for path in paths if not os.path.exists(path)]
    if mirror is None:
        return unseen if (Path(out) / seen / "mark").exists() else [seen, *unseen]
    with tempfile.TemporaryDirectory() as here:
        try:
            fetch(mirror, Path(here), seen)
        except ValueError:
            return [seen, *unseen]
        return unseen if (Path(here) / seen / "mark").exists() else [seen, *unseen]


@dataclass(frozen=True)
class _Work:
    """What a trial's processes are told. Plain values, for it travels."""

    trainings: dict[str, list[dict[str, Any]]]
    roots: dict[str, str]
    weights: dict[str, str]
    out: str
    fresh: str
    state_every: float
    hang: float
    processes: int
    share: Share
    mirror: str | None


def sweep(
    trainings: Mapping[str, Sequence[Experiment]],
    roots: Mapping[str, Path],
    out: Path,
    observer: Observer,
    *,
    share: Share,
    processes: int = 1,
    at_once: int | None = None,
    mirror: str | None = None,
    weights: Mapping[str, Path] | None = None,
    fresh: str = "",
    state_every: float = STATE_EVERY,
    hang: float = HANG,
) -> None:
    """Run every training (hash -> the rows that share it) under `out`, in a `cluster`.

    share, processes, at_once: see `share_of`; runs of one process are as many at once as their share allows.
    The others: `benchmarks.run.run`'s. A trial that fails, dies or hangs (no batch for `hang` seconds) fails
    alone; `observer` hears of it. One whose machine is lost goes on, on another, from its last state.
    OUT/logs/<training>/ gets Ray's CSV and TensorBoard logs.
    mirror: a URI that what is made is sent to and what is there fetched from, see `benchmarks.mirror`.
    """
    work = _Work(
        trainings={key: [asdict(exp) for exp in rows] for key, rows in trainings.items()},
        roots={name: str(path.resolve()) for name, path in roots.items()},
        weights={name: str(path.resolve()) for name, path in (weights or {}).items()},
        out=str(out.resolve()),
        fresh=fresh,
        state_every=state_every,
        hang=hang,
        processes=processes,
        share=share,
        mirror=mirror,
    )
    alone = processes == 1
    # Several processes are started by Ray Train, each with its share; the trial itself only waits for them.
    resources = {"cpu": share.cpus, "gpu": share.gpus} if alone else {"memory": 1.0}
    left = list(trainings)
    for _ in range(LOST):
        ended: set[str] = set()

        def heard(what: str, key: str, *more: Any, ended: set[str] = ended) -> None:
            if what in ("finished", "failed"):
                ended.add(key)
            if what != "lost":
                getattr(observer, what)(key, *more)

        with _mailbox(heard) as mailbox:
            results = tune.Tuner(
                tune.with_resources(tune.with_parameters(_trial, work=work), resources),
                param_space={"trial": tune.grid_search(left)},
                tune_config=tune.TuneConfig(
                    # A process takes the next trial when it is done with one: to import takes seconds. Not
                    # where trials are counted: Ray would count one it drops, and wait for it without end.
                    reuse_actors=alone,
                    max_concurrent_trials=None if alone else at_once,
                    trial_dirname_creator=lambda trial: str(trial.config["trial"]),
                ),
                run_config=tune.RunConfig(
                    name="logs",
                    storage_path=str(out.resolve()),
                    callbacks=[_Relay(heard, out.resolve(), mailbox)],
                    verbose=0,
                ),
            ).fit()
        # Errors nobody was told of: a lost machine, or a trial that Ray has dropped without a word, for the
        # thread before it did not end. What was stopped with Ctrl-C has no error.
        failed = [result for result in map(results.__getitem__, range(len(results))) if result.error]
        left = [key for key in (Path(result.path).name for result in failed) if key not in ended]
        if not left:
            return
    for key in left:
        observer.failed(key, f"the machine it ran on was lost, or Ray dropped it, {LOST} times")


def _trial(config: dict[str, str], work: _Work) -> None:
    """Runs in a Ray worker: one training and its rows, on the device Ray gave it."""
    key = config["trial"]
    if work.processes == 1:
        device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
        return _member(key, work, device, tune.report)
    folder = Path(work.out) / "trainings" / key
    callbacks: list[Any] = [TuneReportCallback()]  # type: ignore[no-untyped-call]
    # Ray Train wants a folder that its processes, on whatever machines, all see.
    with training_lock(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".ray-") as storage:
        ray.train.torch.TorchTrainer(
            lambda: _member(key, work, ray.train.torch.get_device(), ray.train.report),
            scaling_config=ray.train.ScalingConfig(
                num_workers=work.processes,
                use_gpu=work.share.gpus > 0,
                resources_per_worker={"CPU": work.share.cpus, "GPU": work.share.gpus},
            ),
            torch_config=ray.train.torch.TorchConfig(timeout_s=round(2 * work.hang)),
            run_config=ray.train.RunConfig(storage_path=storage, callbacks=callbacks),
        ).fit()


def _trial_log(out: Path, key: str) -> Path:
    return out / "trainings" / key / "trial.log"


def _member(key: str, work: _Work, device: torch.device, report: Callable[[dict[str, Any]], None]) -> None:
    """One process of a trial, or its only one.

    What it prints goes to trial.log of the training's folder, and so does where it was when it hung.
    """
    log = _trial_log(Path(work.out), key)
    log.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(max(1, int(work.share.cpus)))
    reported = -1.0

    def progressed(progress: Progress) -> None:
        nonlocal reported
        # All processes of a run hear the same numbers, and Ray Train waits for the reports of all.
        if progress.seconds - reported >= 1 or progress.step == progress.steps:
            reported = progress.seconds
            report(asdict(progress))

    def saved() -> None:
        try:
            if work.mirror:
                send(work.mirror, Path(work.out), f"trainings/{key}")
        except ValueError as error:  # what is trained so far is on this machine yet
            print(error, file=sys.stderr, flush=True)

    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

        def alive() -> None:
            faulthandler.dump_traceback_later(work.hang, exit=True, file=file)

        rows = [Experiment(**values) for values in work.trainings[key]]
        out, mine = Path(work.out), [f"trainings/{key}"]
        if (rows[0].weights or "").startswith(TRAINING):
            mine.append(f"trainings/{(rows[0].weights or '').removeprefix(TRAINING)}")
        alive()
        try:
            if work.mirror:
                for folder in mine:
                    fetch(work.mirror, out, folder)
            refused: TooManyError | None = None
            try:
                run(
                    rows,
                    {name: Path(path) for name, path in work.roots.items()},
                    out,
                    weights={name: Path(path) for name, path in work.weights.items()},
                    device=device,
                    workers=max(0, int(work.share.cpus) - 1) if device.type == "cuda" else 0,
                    fresh=work.fresh,
                    state_every=work.state_every,
                    on_progress=progressed,
                    on_saved=saved,
                    on_alive=alive,
                )
            except TooManyError as error:  # the training and its other rows are done
                refused = error
            if reported < 0:  # trained before: Ray would print a line of its own for a trial without a word
                report({"rows": len(rows)})
            try:
                if work.mirror and processes.place() == 0:
                    for folder in (mine[0], *(f"runs/{row.hash}" for row in rows)):
                        send(work.mirror, out, folder)
            finally:  # where nothing can be sent either, both are told
                if refused:
                    raise refused
        finally:
            faulthandler.cancel_dump_traceback_later()


class _Relay(tune.Callback):
    """Ray's events to `heard`, as (what, training, more); through a mailbox where Tune runs elsewhere."""

    def __init__(self, heard: Heard, out: Path, mailbox: Queue | None) -> None:
        self.heard, self.out, self.mailbox = heard, out, mailbox

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes its callbacks to disk; who hears, a live display perhaps, stays here."""
        return {"out": self.out, "mailbox": self.mailbox}

    def _tell(self, what: str, trial: Any, *more: Any) -> None:
        event = (what, trial.config["trial"], *more)
        if self.mailbox is None:
            self.heard(*event)
        else:
            self.mailbox.put(event)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell("started", trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "steps" in result:
            fields = {name: result[name] for name in Progress.__dataclass_fields__}
            self._tell("progressed", trial, Progress(**fields))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell("finished", trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = Path(trial.error_file).read_text() if trial.error_file else ""
        if machine_lost(error):
            self._tell("lost", trial)
        else:
            self._tell("failed", trial, reason_of(error, _trial_log(self.out, trial.config["trial"])))


@contextmanager
def _mailbox(heard: Heard) -> Iterator[Queue | None]:
    """What `_Relay` needs where we are a client: Tune's loop then runs on the head of the cluster."""
    if not ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        yield None
        return
    mailbox = Queue(actor_options={"num_cpus": 0})

    def listen() -> None:
        while (event := mailbox.get()) is not None:
            heard(*event)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield mailbox
    finally:
        mailbox.put(None)
        listener.join()
        mailbox.shutdown()


class TrialLog(Protocol):
    """Keeps the finished trials of a search: a value for each field of the space, looks, theta, mAP."""

    trials: list[dict[str, float]]

    def add(self, trial: Mapping[str, float]) -> None:
        """Take note of a finished trial."""


@dataclass(frozen=True)
class Question:
    """What every trial of a search has in common. Plain values, for it travels."""

    experiment: dict[str, Any]
    roots: dict[str, str]
    beginning: str | None


def search(
    question: Question,
    space: Mapping[str, tuple[float, float]],
    log: TrialLog,
    *,
    trials: int,
    looks: int,
    seed: int,
    share: Share,
    at_once: int,
    logs: Path,
) -> None:
    """Run `trials` trials in a `cluster`: Optuna proposes, knowing those in `log`, and ASHA stops the worst.

    space: field of an Experiment -> range, log-uniform. looks: reports of a whole trial. logs: folder of
    Ray's own records.
    """
    import optuna
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = [{name: trial[name] for name in space} for trial in log.trials]
    proposals = OptunaSearch(
        {name: optuna.distributions.FloatDistribution(*ends, log=True) for name, ends in space.items()},
        metric="mAP",
        mode="max",
        seed=seed + len(known),
        points_to_evaluate=known or None,
        evaluated_rewards=[trial["mAP"] for trial in log.trials] if known else None,
    )
    tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_search_trial, question=question, share=share),
            {"cpu": share.cpus, "gpu": share.gpus},
        ),
        tune_config=tune.TuneConfig(
            metric="mAP",
            mode="max",
            num_samples=trials,
            search_alg=proposals,
            scheduler=ASHAScheduler(time_attr="looks", max_t=looks, grace_period=1, reduction_factor=2),
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name="logs", storage_path=str(logs.resolve()), callbacks=[_Keep(log)], verbose=0
        ),
    ).fit()


def _search_trial(config: dict[str, float], question: Question, share: Share) -> None:
    """Runs in a Ray worker: one proposal."""
    from benchmarks.search import try_out

    cuda = bool(ray.get_gpu_ids())
    torch.set_num_threads(max(1, int(share.cpus)))
    try_out(
        Experiment(**(question.experiment | config)),
        {name: Path(path) for name, path in question.roots.items()},
        None if question.beginning is None else Path(question.beginning),
        device=torch.device("cuda" if cuda else "cpu"),
        workers=max(0, int(share.cpus) - 1) if cuda else 0,
        report=tune.report,
    )


class _Keep(tune.Callback):
    """Finished trials, and those stopped early, into the log."""

    def __init__(self, log: TrialLog) -> None:
        self.log = log

    def __getstate__(self) -> dict[str, Any]:
        """As `_Relay`'s."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if "mAP" in trial.last_result:
            self.log.add({**trial.config, **{k: trial.last_result[k] for k in ("looks", "theta", "mAP")}})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = Path(trial.error_file).read_text() if trial.error_file else ""
        print(f"a trial failed: {reason_of(error, Path(os.devnull))}", file=sys.stderr, flush=True)


def machine_lost(error: str) -> bool:
    """Whether a trial's traceback says that not it, but the machine it ran on came to an end."""
    return "its node has died" in error or "NodeDiedError" in error


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
    if any(sign in error for sign in ("OutOfMemoryError", "MemoryError", "can't allocate memory")):
        reason = "out of memory"
    elif "worker process has died" in error or "ActorDiedError" in error:
        reason = "its process died"
    else:
        reason = said[-1] if said else "no reason was left"
    return "\n".join([reason, *(f"    {line}" for line in printed[-TAIL:])])
