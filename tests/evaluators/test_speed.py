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
    popularity = np.log(1 / np.arange(1, 61) ** 1.2)

    def actions(people, most):  # different ones for each person, the common ones more often
        drawn = popularity + rng.gumbel(size=(people, 60))
        return np.argpartition(-drawn, most, axis=1)[:, :most] + 1

    people = rng.choice([1, 2, 3, 5], len(video), p=[0.4, 0.35, 0.15, 0.1])
    frame = np.repeat(np.arange(len(video)), people)
    corner = rng.uniform(0, 0.6, (len(frame), 2))
    box = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, corner.shape)], axis=1)
    does = actions(len(frame), 3)
    person, which = np.nonzero(rng.random(does.shape) < [1.0, 0.75, 0.36])
    truth = GroundTruth(
        videos, video[frame][person], second[frame][person], box[person].round(3), does[person, which]
    )

    # Each person is found once with a wobble, a tenth a second time, and a wild box here and there.
    of = np.concatenate([np.arange(len(frame)), np.flatnonzero(rng.random(len(frame)) < 1 / 10)])
    seen_box = box[of] + rng.normal(0, 0.02, (len(of), 4))
    wild = rng.random(len(of)) < 0.1
    seen_box[wild] = box[rng.integers(len(box), size=wild.sum())]
    guess = actions(len(of), rows_per_box)
    known = rng.random(len(of)) < 0.8
    guess[known, 0] = does[of[known], 0]
    truly = (guess[:, :, None] == does[of][:, None, :2]).any(axis=2)
    score = np.where(truly, rng.beta(1.5, 3, guess.shape), rng.beta(0.4, 4, guess.shape))
    row, column = np.divmod(rng.permutation(guess.size), rows_per_box)
    where = frame[of[row]]
    found = Detections(
        videos,
        video[where],
        second[where],
        seen_box[row].round(4),
        guess[row, column],
        score[row, column].round(6),
    )
    return truth, found
