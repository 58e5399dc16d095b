import json
from dataclasses import asdict

import pytest

from benchmarks.experiments import Experiment, rows_at
from benchmarks.score.results import Result


@pytest.fixture(scope="session")
def store():
    """store(runs, row, ...): write the result.json of a row, or of an Experiment, as a run does."""
    return _store


def _store(runs, row, *, scale="tiny", seed=0, **numbers):
    exp = row if isinstance(row, Experiment) else rows_at(scale, seed=seed)[row]
    values = {
        "experiment": asdict(exp), "hash": exp.hash, "training": "t", "split": "test", "protocol": "standard",
        "mAP": 0.5, "mAP_curve_theta": 0.5, "mAP_untrained": 0.01, "mAP_random_classes": 0.25,
        "mAP_slowfast": 0.49, "accuracy": None, "precision": 0.75, "recall": 0.5,
        "candidates_per_actor": 1.5, "p_actor": 0.9, "actor_ap_50": 0.8, "actor_ap_75": 0.6,
        "class_ap_true_boxes": 0.7, "mAP_without_duplicates": 0.55,
        "per_class": {"left": 0.5}, "clips": 600, "substituted": 0,
        "seconds_training": 1.0, "seconds": 2.0, "started": "2026-01-01T00:00:00+00:00", "parameters": 1,
        "gflops": 0.1, "origin": {"data": "f"}, "commit": "c", "device": "d",
        "versions": {},
    } | numbers  # fmt: skip
    folder = runs / exp.hash
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(asdict(Result(**values))))
