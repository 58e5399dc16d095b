"""How fast: AVA-val's size, beside a straightforward implementation measured in the same run.

    python -m pytest tests/evaluators/test_speed.py -m slow -s --benchmark-disable-gc

Seconds are CPU seconds of this process: what they say holds on a busy machine, too.
"""

import numpy as np

from evaluators import Detections, GroundTruth

VIDEOS, SECONDS = 64, np.arange(902, 1799)  # 57,408 keyframes
CLASSES = {i: f"action {i}" for i in range(1, 61)}


def ava_like(frames=None, rows_per_box=16, seed=0):
    """(truth, found) like AVA val's: skewed classes, crowded and lonely frames, wild boxes."""
    rng = np.random.default_rng(seed)
    videos = tuple(f"video{i:02d}" for i in range(VIDEOS))
    video, second = (x.ravel() for x in np.meshgrid(np.arange(VIDEOS), SECONDS, indexing="ij"))
    if frames is not None:
        kept = np.sort(rng.choice(len(video), frames, replace=False))
        video, second = video[kept], second[kept]
    popularity = 1 / np.arange(1, 61) ** 1.2
    popularity /= popularity.sum()

    people = rng.choice([1, 2, 3, 5], len(video), p=[0.4, 0.35, 0.15, 0.1])
    frame = np.repeat(np.arange(len(video)), people)
    corner = rng.uniform(0, 0.6, (len(frame), 2))
    box = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, corner.shape)], axis=1)
    actions = rng.choice([1, 2, 3], len(frame), p=[0.1, 0.55, 0.35])
    person = np.repeat(np.arange(len(frame)), actions)
    label = rng.choice(60, len(person), p=popularity) + 1
    _, once = np.unique(person * 100 + label, return_index=True)
    person, label = person[once], label[once]
    truth = GroundTruth(videos, video[frame][person], second[frame][person], box[person].round(3), label)

    # Each person is found once with a wobble, a sixth a second time, and a wild box here and there.
    of = np.concatenate([np.arange(len(frame)), np.flatnonzero(rng.random(len(frame)) < 1 / 6)])
    seen_box = box[of] + rng.normal(0, 0.02, (len(of), 4))
    wild = rng.random(len(of)) < 0.1
    seen_box[wild] = box[rng.permutation(len(of))[: wild.sum()] % len(box)]
    row = np.repeat(np.arange(len(of)), rows_per_box)
    guess = rng.choice(60, len(row), p=popularity) + 1
    score = rng.beta(0.4, 4, len(row))
    first = np.zeros(len(frame), dtype=int)
    first[person[::-1]] = label[::-1]  # a true label of each person, guessed with more confidence
    truly = np.arange(0, len(row), rows_per_box)
    guess[truly], score[truly] = first[of], rng.beta(2, 2, len(of))
    order = rng.permutation(len(row))
    where = frame[of[row]]
    found = Detections(videos, video[where], second[where], seen_box[row].round(4), guess, score.round(6))
    found = Detections(
        videos, *(getattr(found, f)[order] for f in ("video", "frame", "box", "label", "score"))
    )
    return truth, found
