"""Action-detection metrics from plain NumPy arrays, without torch.

Read files (`read_groundtruth`, `read_detections`, `read_act`, ..), score them, get a small frozen
result:

    score = frame_map(truth, found, classes, excluded=excluded)       # AVA; UCF101-24, JHMDB by protocol
    actors = actor_precision_recall(truth, persons, classes)          # people, whatever they do
    tubes = video_map(truth, found, classes)                          # frame detections, linked
    spread = bootstrap(truth, found, classes)                         # intervals over videos
    change = compare(truth, (found, other), classes)                  # two runs, paired
    budget = error_budget(truth, found, classes)                      # where the mAP goes

    print(summarise(score)); plot(score).savefig("ap.svg")            # of any of them

Every evaluator is called like these: ground truth, what was found, the classes that count; then,
by keyword, what to exclude and which rules apply. Every result carries the rules it was made by.
The rows are `GroundTruth` and `Detections`, for files and for arrays of one's own alike.
`python -m evaluators` does the same from files.
"""

from evaluators.act_pickle import ActAnnotations as ActAnnotations
from evaluators.act_pickle import ActFileError as ActFileError
from evaluators.act_pickle import only_videos as only_videos
from evaluators.act_pickle import read_act as read_act
from evaluators.act_pickle import read_act_detections as read_act_detections
from evaluators.act_pickle import split_truth as split_truth
from evaluators.act_pickle import split_videos as split_videos
from evaluators.audit import Audit as Audit
from evaluators.audit import audit as audit
from evaluators.ava_csv import AVA_IDS as AVA_IDS
from evaluators.ava_csv import AvaFileError as AvaFileError
from evaluators.ava_csv import DataFileError as DataFileError
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
from evaluators.bootstrap import Bootstrap as Bootstrap
from evaluators.bootstrap import Comparison as Comparison
from evaluators.bootstrap import bootstrap as bootstrap
from evaluators.bootstrap import compare as compare
from evaluators.errors import ErrorBudget as ErrorBudget
from evaluators.errors import error_budget as error_budget
from evaluators.frame_map import AVA_PROTOCOLS as AVA_PROTOCOLS
from evaluators.frame_map import UCF_PROTOCOLS as UCF_PROTOCOLS
from evaluators.frame_map import Detections as Detections
from evaluators.frame_map import FrameMap as FrameMap
from evaluators.frame_map import GroundTruth as GroundTruth
from evaluators.frame_map import Protocol as Protocol
from evaluators.frame_map import TubeTruth as TubeTruth
from evaluators.frame_map import average_precision as average_precision
from evaluators.frame_map import frame_map as frame_map
from evaluators.frame_map import match as match
from evaluators.precision_recall import ActorCurve as ActorCurve
from evaluators.precision_recall import ActorScore as ActorScore
from evaluators.precision_recall import actor_curve as actor_curve
from evaluators.precision_recall import actor_precision_recall as actor_precision_recall
from evaluators.present import plot as plot
from evaluators.present import summarise as summarise
from evaluators.video_map import Linking as Linking
from evaluators.video_map import Tubes as Tubes
from evaluators.video_map import VideoMap as VideoMap
from evaluators.video_map import link as link
from evaluators.video_map import video_map as video_map
