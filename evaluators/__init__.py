"""Action-detection metrics from plain NumPy arrays, without torch.

Read files (`read_groundtruth`, `read_detections`, `read_act`, ..), score them, get a small frozen
result:

    score = frame_mAP(ground_truth, detections, classes)              # AVA
    score = frame_mAP(ground_truth, detections, classes, rules=EvalRules("gurkirt"))  # UCF101-24, JHMDB
    actors = actor_precision_recall(ground_truth, persons, classes)   # of actors, whatever the action
    tubes = video_mAP(ground_truth, detections, classes)              # frame detections, linked
    interval = intervals(ground_truth, detections, classes)           # confidence intervals over videos
    change = compare(ground_truth, (first, second), classes)          # two runs, paired
    budget = error_budget(ground_truth, detections, classes)          # mAP gain by kind of error

    print(summarise(score)); plot(score).savefig("ap.svg")            # of any of them

Every evaluator takes ground truth, detections and the evaluated classes, and by keyword the rules:
`EvalRules(protocol, iou=.., excluded=..)`. Every result carries the protocol it was computed by.
`GroundTruth` and `Detections` hold plain arrays, from files or from your own code.
`python -m evaluators` does the same from files.
"""

from actloc_version import __version__ as __version__
from evaluators.act_pickle import ActAnnotations as ActAnnotations
from evaluators.act_pickle import ActFileError as ActFileError
from evaluators.act_pickle import read_act as read_act
from evaluators.act_pickle import read_act_detections as read_act_detections
from evaluators.act_pickle import split_ground_truth as split_ground_truth
from evaluators.act_pickle import split_videos as split_videos
from evaluators.audit import Audit as Audit
from evaluators.audit import audit_rows as audit_rows
from evaluators.ava_csv import AVA_IDS as AVA_IDS
from evaluators.ava_csv import AvaFileError as AvaFileError
from evaluators.ava_csv import read_annotations as read_annotations
from evaluators.ava_csv import read_detections as read_detections
from evaluators.ava_csv import read_exclusions as read_exclusions
from evaluators.ava_csv import read_frame_detections as read_frame_detections
from evaluators.ava_csv import read_groundtruth as read_groundtruth
from evaluators.ava_csv import read_label_map as read_label_map
from evaluators.ava_csv import read_persons as read_persons
from evaluators.ava_csv import write_detections as write_detections
from evaluators.ava_csv import write_frame_detections as write_frame_detections
from evaluators.ava_csv import write_persons as write_persons
from evaluators.chance import chance_level as chance_level
from evaluators.errors import ErrorBudget as ErrorBudget
from evaluators.errors import error_budget as error_budget
from evaluators.files import DataFileError as DataFileError
from evaluators.frame_map import AVA_PROTOCOLS as AVA_PROTOCOLS
from evaluators.frame_map import UCF_PROTOCOLS as UCF_PROTOCOLS
from evaluators.frame_map import Detections as Detections
from evaluators.frame_map import EvalRules as EvalRules
from evaluators.frame_map import FrameMap as FrameMap
from evaluators.frame_map import GroundTruth as GroundTruth
from evaluators.frame_map import GroundTruthTubes as GroundTruthTubes
from evaluators.frame_map import Protocol as Protocol
from evaluators.frame_map import average_precision as average_precision
from evaluators.frame_map import frame_mAP as frame_mAP
from evaluators.jackknife import Comparison as Comparison
from evaluators.jackknife import Intervals as Intervals
from evaluators.jackknife import compare as compare
from evaluators.jackknife import intervals as intervals
from evaluators.linking import LINKINGS as LINKINGS
from evaluators.linking import Linking as Linking
from evaluators.linking import Viterbi as Viterbi
from evaluators.linking import link as link
from evaluators.matching import match as match
from evaluators.precision_recall import ActorCurve as ActorCurve
from evaluators.precision_recall import ActorScore as ActorScore
from evaluators.precision_recall import actor_curve as actor_curve
from evaluators.precision_recall import actor_precision_recall as actor_precision_recall
from evaluators.present import plot as plot
from evaluators.present import summarise as summarise
from evaluators.tubes import Tubes as Tubes
from evaluators.video_map import VIDEO_RULES as VIDEO_RULES
from evaluators.video_map import VideoMap as VideoMap
from evaluators.video_map import video_mAP as video_mAP
