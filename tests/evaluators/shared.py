"""What several tests of the evaluators share."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from evaluators import Detections, GroundTruth

PROGRAMS = Path(__file__).with_name("programs")
CHECKOUT = Path(__file__).resolve().parents[2]
WHOLE, LEFT = (0, 0, 1, 1), (0, 0, 0.5, 1)
CLASSES = {1: "run", 2: "sit", 3: "fly"}  # without ground truth


def run_program(name):
    """Run a program of this folder to its end."""
    return subprocess.run(
        [sys.executable, PROGRAMS / name], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip


def ground_truth(*rows):
    """From (video, box, label)."""
    return GroundTruth(*columns(rows))


def detections(*rows):
    return Detections(*columns(rows), score=np.array([row[3] for row in rows], dtype=float))


def columns(rows):
    videos = tuple(dict.fromkeys(row[0] for row in rows))
    video = np.array([videos.index(row[0]) for row in rows], dtype=int)
    box = np.array([row[1] for row in rows], dtype=float).reshape(-1, 4)
    return videos, video, np.full(len(rows), 7), box, np.array([row[2] for row in rows], dtype=int)


def half_detected(videos=200, share=0.5, seed=0):
    """One ground-truth box per video, a share of them detected, no false positives."""
    detected = np.random.default_rng(seed).permutation(videos) < share * videos
    gt = ground_truth(*[(f"v{i}", WHOLE, 1) for i in range(videos)])
    return gt, detections(*[(f"v{i}", WHOLE, 1, 0.5 + i / 1000) for i in np.flatnonzero(detected)])


def as_tuples(rows):
    """(video, box, label) of each row."""
    return [
        (rows.videos[v], tuple(b), int(n)) for v, b, n in zip(rows.video, rows.box, rows.label, strict=True)
    ]
