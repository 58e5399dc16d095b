"""Link frame detections to tubes: ACT's rules and MOC's (`Linking`), and YOWO's (`Viterbi`).

Letters: K detections, F frames, G classes of videos, N boxes in a frame. Boxes are one pixel wider and higher
than x2 - x1 and y2 - y1, as in ACT, wherever nothing else is said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.frame_map import Detections
from evaluators.matching import Bools, Floats, Ints, box_iou, candidate_pairs, first_best, run_starts
from evaluators.tubes import OverlapRules, Tubes, class_of_video, suppress_tubes

Floats32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Linking:
    """How frame detections are linked to tubes, class by class. The defaults are ACT's.

    From frame to frame, tubes choose in order of their mean score: each takes the best-scored
    detection that overlaps its last box by link_iou. A detection that no tube takes starts one. A
    tube ends when it takes no detection for `gap` frames. Frames without a detection inside a tube
    get the box interpolated linearly between its neighbours; ACT needs none, since its detector
    outputs six frames at once.
    """

    box_nms: float = 0.3  # in a frame, drop boxes whose IoU with a better-scored one is above this
    soft: bool = False  # keep them, with their score times (1 - that IoU), as MOC does
    keep: int = 10  # and keep at most this many of the boxes, best first
    link_iou: float = 0.2
    gap: int = 5
    least_score: float = 0.01  # of a tube: the mean over its detections
    least_frames: int = 15  # of a tube, from its first to its last
    tube_nms: float = 0.3  # in a video, drop tubes whose overlap with a better-scored one is above this


@dataclass(frozen=True, kw_only=True)
class Viterbi:
    """How YOWO links: the best paths through all frames of a video, class by class.

    A path takes a box of every frame, from the first of the video to its last. It is as good as the sum over
    neighbouring boxes of their IoU, their scores, and half of the product of their scores; here boxes are
    x2 - x1 wide. A frame without a box has those of the nearest frame that has any, the earlier of two.
    The best path's boxes are taken out before the next path is looked for, until a frame has no box left.
    """

    tubes: int = 3  # at most, of a class in a video
    tube_nms: float = 0.3  # drop tubes whose overlap with a better-scored one is above this


LINKINGS: dict[str, Linking | Viterbi] = {
    "act": Linking(),
    # MOC's tubelets have seven frames, whose tubes survive as many without one; a frame's box has one.
    "moc": Linking(box_nms=0.6, soft=True, link_iou=0.5, gap=7, least_score=0.005),
    "yowo": Viterbi(),
}
"""Linkings that are published by, by name."""

_YOWO_OVERLAP = OverlapRules(least_shared=2)
_CHUNK = 1_000_000  # box pairs of neighbouring frames per step; bounds the memory


def link(
    detections: Detections,
    linking: Linking | Viterbi | None = None,
    *,
    lengths: Mapping[str, int] | None = None,
) -> Tubes:
    """Link frame detections to tubes, each class of each video by itself. None: ACT's linking.

    lengths: video -> its frames, for `Viterbi`, whose tubes last as long as their video. A video that is not
    in there ends with its last detection.
    """
    if isinstance(linking, Viterbi):
        return _best_paths(detections, linking, lengths or {})
    return _link_frames(detections, linking or Linking())


def _link_frames(detections: Detections, rules: Linking) -> Tubes:
    """Tubes by the rules of `Linking`.

    All videos advance together, frame by frame, which is what makes it fast. Equal scores keep the
    order of the rows, equal tubes the order in which they started.
    """
    group = class_of_video(detections)
    kept, score = _suppress_boxes(detections, group, rules)
    dets, group = replace(detections.take(kept), score=score), group[kept]
    tube = _link_rows(group, dets, rules)

    # Rows tube by tube: the score of a tube is the mean over its detections, before interpolation.
    order = np.argsort(tube, kind="stable")  # files are in the order of frames, as a rule
    if ((np.diff(dets.frame[order]) <= 0) & (np.diff(tube[order]) == 0)).any():
        order = np.lexsort((dets.frame, tube))
    dets, tube = dets.take(order), tube[order]
    first = np.flatnonzero(run_starts(tube))
    last = np.append(first[1:], len(tube)) - 1 if len(first) else first
    size = last - first + 1
    mean = np.add.reduceat(dets.score, first) / size if len(first) else np.zeros(0)
    length = dets.frame[last] - dets.frame[first] + 1
    good = (mean >= rules.least_score) & (length >= rules.least_frames)
    of_good = np.repeat(good, size)
    tubes = Tubes(
        dets.videos,
        dets.video[first[good]],
        dets.label[first[good]],
        mean[good],
        np.repeat(np.arange(int(good.sum())), size[good]),
        dets.frame[of_good],
        dets.box[of_good],
    )
    return suppress_tubes(_interpolate(tubes), rules.tube_nms)


def _suppress_boxes(detections: Detections, group: Ints, rules: Linking) -> tuple[Ints, Floats]:
    """The rows that box NMS leaves, in file order, and their scores."""
    stride = 1 + int(detections.frame.max(initial=0))
    cell = group * stride + detections.frame  # one number per class of a frame
    score = detections.score.copy()
    left: Ints = np.argsort(cell, kind="stable")
    kept: list[Ints] = []
    while len(left) and (rules.soft or len(kept) < rules.keep):  # round k: the k-th box of a frame
        first = np.flatnonzero(run_starts(cell[left]))
        best = first_best(detections.score[left], first)
        kept.append(left[best])
        others = np.ones(len(left), np.bool_)
        others[best] = False
        leader = np.repeat(left[best], np.diff(first, append=len(left)))[others]
        left = left[others]
        iou = box_iou(detections.box[left], detections.box[leader], plus_one=True)
        near = iou > rules.box_nms
        if rules.soft:
            score[left[near]] *= 1 - iou[near]
            kept.append(left[near])
        left = left[~near]
    rows = np.sort(np.concatenate(kept)) if kept else left
    if rules.soft:  # the best by their new scores; a lowered box lowered no others
        rows = rows[np.lexsort((-score[rows], cell[rows]))]
        first = np.flatnonzero(run_starts(cell[rows]))
        place = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
        rows = np.sort(rows[place < rules.keep])
    return rows, score[rows]


def _link_rows(group: Ints, dets: Detections, rules: Linking) -> Ints:
    """The tube of each detection, (K,)."""
    frame, score = dets.frame, dets.score
    tube = np.full(len(group), -1, dtype=np.int64)
    by_frame = np.argsort(frame.astype(np.min_scalar_type(int(frame.max(initial=0)))), kind="stable")
    borders = np.flatnonzero(run_starts(frame[by_frame]))
    # Active tubes, one entry each: their last row, the sum and the number of their scores.
    last, total, count = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
    num_tubes = 0
    for rows in np.split(by_frame, borders[1:]) if len(borders) else []:
        active = frame[rows[0]] - frame[last] <= rules.gap
        last, total, count = last[active], total[active], count[active]
        # Detections of this frame against the last box of each active tube of the same class and video.
        pairs = candidate_pairs(group[last], dets.box[last], group[rows], dets.box[rows], plus_one=True)
        near = pairs.iou >= rules.link_iou
        new, old = _link_pairs(pairs.det[near], pairs.gt[near], -score[rows], -total / count)
        tube[rows[new]] = tube[last[old]]
        last[old] = rows[new]
        total[old] += score[rows[new]]
        count[old] += 1

        started = rows[tube[rows] < 0]  # detections that no tube took
        tube[started] = num_tubes + np.arange(len(started))
        num_tubes += len(started)
        last = np.concatenate([last, started])
        total = np.concatenate([total, score[started]])
        count = np.concatenate([count, np.ones(len(started), np.int64)])
    return tube


def _link_pairs(new: Ints, old: Ints, new_key: Floats, old_key: Floats) -> tuple[Ints, Ints]:
    """Of the pairs (new detection, old tube) that may link, those that do.

    The rule is sequential: tube by tube in order of its key, each takes the remaining detection of
    least key; equal keys in order of number. All tubes rank the detections alike and all detections
    rank the tubes alike, so a pair that is the first choice of both is final, and rounds of such
    pairs give the sequential result.
    """
    rank_new, rank_old = _ranks(new_key, new), _ranks(old_key, old)
    linked = [np.stack([new[:0], old[:0]])]
    while len(new):
        of_new, of_old = np.full(len(rank_new), len(rank_old)), np.full(len(rank_old), len(rank_new))
        np.minimum.at(of_new, new, rank_old[old])
        np.minimum.at(of_old, old, rank_new[new])
        final = (of_new[new] == rank_old[old]) & (of_old[old] == rank_new[new])
        linked.append(np.stack([new[final], old[final]]))
        of_new[new[final]], of_old[old[final]] = -1, -1
        left = (of_new[new] >= 0) & (of_old[old] >= 0)
        new, old = new[left], old[left]
    pairs = np.concatenate(linked, axis=1)
    return pairs[0], pairs[1]


def _interpolate(tubes: Tubes) -> Tubes:
    """Tubes with a box on every frame from the first to the last, linear between detections."""
    if len(tubes.tube) == 0:
        return tubes
    after = np.minimum(np.arange(len(tubes.tube)) + 1, len(tubes.tube) - 1)
    continues = tubes.tube[after] == tubes.tube
    continues[-1] = False
    step = np.where(continues, tubes.frame[after] - tubes.frame, 1)
    row = np.repeat(np.arange(len(step)), step)
    along = np.arange(len(row)) - np.repeat(np.cumsum(step) - step, step)
    share = (along / step[row])[:, None]
    box = tubes.box[row] + share * (tubes.box[after[row]] - tubes.box[row])
    return replace(tubes, tube=tubes.tube[row], frame=tubes.frame[row] + along, box=box)


def _ranks(key: Floats, used: Ints) -> Ints:
    """The ranks of those keys (K,) that are used, numbers of keys in any order; 0 for the others."""
    among = np.zeros(len(key), np.bool_)
    among[used] = True
    some = np.flatnonzero(among)
    rank = np.zeros(len(key), dtype=np.int64)
    rank[some[np.argsort(key[some], kind="stable")]] = np.arange(len(some))
    return rank


# --- Viterbi -------------------------------------------------------------------------------------


def _best_paths(detections: Detections, rules: Viterbi, lengths: Mapping[str, int]) -> Tubes:
    """Tubes by the rules of `Viterbi`. Sums are in float32, as YOWO's: that decides between near paths."""
    order = np.lexsort((detections.frame, class_of_video(detections)))
    dets = detections.take(order)
    group = class_of_video(dets)
    first = np.flatnonzero(run_starts(group))
    last_frame = np.zeros(len(dets.videos), np.int64)
    np.maximum.at(last_frame, dets.video, dets.frame)
    length = np.maximum(last_frame, [lengths.get(name, 0) for name in dets.videos])[dets.video[first]]
    begin = min(1, int(dets.frame.min(initial=1)))  # frames count from 1, from 0 where there is such a row
    length = length + 1 - begin

    boxes = np.diff(first, append=len(group))
    widest = np.array([np.bincount(dets.frame[a : a + n]).max() for a, n in zip(first, boxes, strict=True)])
    found = [(first[:0], np.zeros((0, 0), np.int64))]
    for part in _alike(length, widest):
        rows = _slots(dets.frame - begin, first[part], boxes[part], length[part], int(widest[part].max()))
        found += [(part[of], path) for of, path in _paths(dets, rows, rules.tubes)]
    return suppress_tubes(_as_tubes(dets, begin, found), rules.tube_nms, _YOWO_OVERLAP)


def _alike(length: Ints, widest: Ints) -> Iterator[Ints]:
    """Groups, (G,) each time, that have about as many boxes in a frame, _CHUNK pairs of boxes at most."""
    order = np.lexsort((length, widest))
    at = 0
    while at < len(order):
        end = at + 1
        longest, most = int(length[order[at]]), int(widest[order[at]])
        while end < len(order):
            longest = max(longest, int(length[order[end]]))
            more = int(widest[order[end]])
            if more > 1.5 * most or (end + 1 - at) * longest * more**2 > _CHUNK:
                break
            end += 1
        yield order[at:end]
        at = end


def _slots(frame: Ints, first: Ints, boxes: Ints, length: Ints, width: int) -> Ints:
    """Rows of the boxes in every frame, (G, F, N), -1 for none; a video's last frame is the last of F.

    A frame without boxes has those of the nearest one that has any.
    """
    rows = np.full((len(first), int(length.max()), width), -1, np.int64)
    for of, (a, n, frames) in enumerate(zip(first, boxes, length, strict=True)):
        own = frame[a : a + n]
        filled, start, count = np.unique(own, return_index=True, return_counts=True)
        every = np.arange(frames)
        after = np.minimum(np.searchsorted(filled, every), len(filled) - 1)
        before = np.maximum(after - 1, 0)
        nearest = np.where(np.abs(filled[before] - every) <= np.abs(filled[after] - every), before, after)
        slot = np.arange(width)
        box = a + start[nearest][:, None] + slot
        rows[of, -frames:] = np.where(slot < count[nearest][:, None], box, -1)
    return rows


def _paths(dets: Detections, rows: Ints, most: int) -> Iterator[tuple[Ints, Ints]]:
    """Up to `most` times: which of the G have another path, (g,), and its rows of detections, (g, F)."""
    groups, frames, width = rows.shape
    there: Bools = rows >= 0
    box, score = dets.box[rows], dets.score[rows]
    a, b = np.broadcast_arrays(box[:, :-1, :, None], box[:, 1:, None, :])
    iou = box_iou(a.reshape(-1, 4), b.reshape(-1, 4)).reshape(groups, frames - 1, width, width)
    before, after = score[:, :-1, :, None], score[:, 1:, None, :]
    edge = (iou + (before + after) + 0.5 * (before * after)).astype(np.float32)
    within: Bools = np.logical_or.reduce(
        there, axis=2
    )  # the frames of each video; before it begins there are no boxes
    free: Bools = there.copy()
    for _ in range(most):
        open_ = np.flatnonzero((free.any(axis=2) | ~within).all(axis=1))
        if not len(open_):
            return
        path = _best_path(edge[open_], free[open_], within[open_])
        of, frame = np.nonzero(within[open_])
        taken = path[of, frame]
        free[open_[of], frame, taken] = False
        chosen = np.full(path.shape, -1, np.int64)
        chosen[of, frame] = rows[open_[of], frame, taken]
        yield open_, chosen


def _best_path(edge: Floats32, free: Bools, within: Bools) -> Ints:
    """The slot of each frame on the best path through the free slots, (g, F); 0 before a video begins.

    Backwards, the best that can follow each box; forwards, which box that is.
    """
    groups, frames, width = free.shape
    best = np.zeros((groups, frames, width), np.float32)
    following = np.zeros((groups, frames, width), np.int64)
    for frame in range(frames - 2, -1, -1):
        total = edge[:, frame] + best[:, frame + 1, None, :]
        total[np.broadcast_to(~free[:, frame + 1, None, :], total.shape)] = -np.inf
        following[:, frame] = total.argmax(2)
        best[:, frame] = total.max(2)
    begins = within.argmax(1)
    every = np.arange(groups)
    start = np.where(free[every, begins], best[every, begins], -np.inf).argmax(1)
    slot = np.zeros((groups, frames), np.int64)
    for frame in range(frames):
        follows = following[every, frame - 1, slot[:, frame - 1]] if frame else start
        slot[:, frame] = np.where(begins < frame, follows, np.where(begins == frame, start, 0))
    return slot


def _as_tubes(dets: Detections, begin: int, found: list[tuple[Ints, Ints]]) -> Tubes:
    """Paths, each the rows of `dets` frame by frame, with the number of frames that come before it."""
    groups = np.concatenate([of for of, _ in found])
    order = np.argsort(groups, kind="stable")
    paths = [path for _, some in found for path in some]
    paths = [paths[i][paths[i] >= 0] for i in order]
    first = np.array([path[0] for path in paths], np.int64)
    size = np.array([len(path) for path in paths], np.int64)
    row = np.concatenate([np.zeros(0, np.int64), *paths])
    tube = np.repeat(np.arange(len(paths)), size)
    total = np.bincount(tube, weights=dets.score[row], minlength=len(paths))
    frame = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in size)]) + begin
    return Tubes(
        dets.videos,
        dets.video[first],
        dets.label[first],
        total / np.maximum(size, 1),
        tube,
        frame,
        dets.box[row],
    )
