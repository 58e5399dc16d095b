"""Plots a score; prints whether matplotlib was imported before, and whether pyplot was after."""

import sys

import numpy as np

from evaluators import Detections, GroundTruth, frame_mAP, plot

zero, box = np.zeros(1, int), np.array([[0, 0, 1, 1.0]])
score = frame_mAP(
    GroundTruth(("a",), zero, zero, box, zero), Detections(("a",), zero, zero, box, zero, zero), {0: "x"}
)
before = "matplotlib" in sys.modules
plot(score).savefig("/dev/null", format="png")
print(before, "matplotlib.pyplot" in sys.modules)
