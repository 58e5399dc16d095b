"""Action-detection metrics from plain NumPy arrays, without torch.

Read files (`read_groundtruth`, `read_detections`, ..), score them, get a small frozen result:

    score = frame_map(truth, found, classes, excluded=excluded)       # AVA frame-mAP
    actors = actor_precision_recall(truth, persons, classes)          # people, whatever they do

Every evaluator is called like these two: ground truth, what was found, the classes that count;
then, by keyword, what to exclude and which rules apply. Every result carries the rules it was made
by. The rows are `GroundTruth` and `Detections`, for files and for arrays of one's own alike.
"""

from evaluators.ava_csv import AVA_IDS as AVA_IDS
from evaluators.ava_csv import AvaFileError as AvaFileError
from evaluators.ava_csv import read_annotations as read_annotations
from evaluators.ava_csv import read_detections as read_detections
from evaluators.ava_csv import read_exclusions as read_exclusions
from evaluators.ava_csv import read_groundtruth as read_groundtruth
from evaluators.ava_csv import read_label_map as read_label_map
from evaluators.ava_csv import read_persons as read_persons
from evaluators.ava_csv import write_detections as write_detections
from evaluators.ava_csv import write_persons as write_persons
from evaluators.frame_map import Detections as Detections
from evaluators.frame_map import FrameMap as FrameMap
from evaluators.frame_map import GroundTruth as GroundTruth
from evaluators.frame_map import Protocol as Protocol
from evaluators.frame_map import average_precision as average_precision
from evaluators.frame_map import frame_map as frame_map
from evaluators.frame_map import match as match
from evaluators.precision_recall import ActorScore as ActorScore
from evaluators.precision_recall import actor_curve as actor_curve
from evaluators.precision_recall import actor_precision_recall as actor_precision_recall
