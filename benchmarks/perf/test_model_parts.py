"""Matching, loss and selection at the paper's batch, and the report, each against a named reference.

`nox -s perf`. Ratios, both sides measured in turn in one run; the floors are below what was measured on an
idle CPU of two cores. On a GPU, where there is one, the backbone's step is timed with synchronisation, and
reported as a share of what a large product reaches there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from actloc_core import backbones, selection
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.loss import LossWeights, set_loss
from actloc_core.matcher import CostWeights, match
from actloc_core.structures import Predictions, Targets
from benchmarks.experiments import TABLES, rows_at
from benchmarks.perf.yardstick import against
from benchmarks.score.analysis import THETAS, Analysis
from benchmarks.score.resampled import METRICS, SAMPLES
from benchmarks.score.results import Result
from benchmarks.train.gflops import Count, count_instantly
from reports import charts, page, tables

CLIPS, CANDIDATES, ACTIONS = 16, 512, 80
"""The paper's batch: 2(C+T) of 16x16 tokens, AVA's actions."""


@pytest.fixture(scope="module")
def batch() -> tuple[Predictions, list[Targets]]:
    g = torch.Generator().manual_seed(0)
    centre, size = torch.rand(2, CLIPS, CANDIDATES, 2, generator=g)
    predictions = Predictions(
        torch.cat([centre, 0.05 + 0.4 * size], -1),
        torch.randn(CLIPS, CANDIDATES, 2, generator=g),
        torch.randn(CLIPS, CANDIDATES, ACTIONS, generator=g),
    )
    targets = []
    for clip in range(CLIPS):
        people = 1 + clip % 6
        drawn = torch.rand(2, people, 2, generator=g)
        boxes = torch.cat([drawn[0], 0.1 + 0.3 * drawn[1]], 1)
        targets.append(Targets(boxes, (torch.rand(people, ACTIONS, generator=g) < 0.03).float()))
    return predictions, targets


def plain_giou(a: Tensor, b: Tensor) -> Tensor:
    """(L, 4) and (N, 4) xyxy -> (L, N)."""
    low, high = torch.max(a[:, None, :2], b[:, :2]), torch.min(a[:, None, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1)[:, None] + (b[:, 2:] - b[:, :2]).prod(-1) - inter
    low, high = torch.min(a[:, None, :2], b[:, :2]), torch.max(a[:, None, 2:], b[:, 2:])
    hull = (high - low).prod(-1)
    return inter / union - (hull - union) / hull


def plain_match(
    predictions: Predictions, targets: list[Targets], w: CostWeights
) -> list[tuple[Tensor, Tensor]]:
    """DETR's way: clip by clip, the whole cost of a clip, then the assignment."""
    matches = []
    for i, target in enumerate(targets):
        boxes, p = predictions.boxes[i], predictions.actor_logits[i].softmax(-1)
        logits = predictions.action_logits[i]
        action = torch.stack(
            [
                torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, label.expand_as(logits), reduction="none"
                ).mean(-1)
                for label in target.labels
            ],
            dim=1,
        )
        cost = (
            w.l1 * torch.cdist(boxes, target.boxes, p=1)
            - w.giou * plain_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target.boxes))
            - w.actor * p[:, :1].log()
            + w.action * action
        )
        rows, columns = linear_sum_assignment(cost.numpy())
        matches.append((torch.as_tensor(rows), torch.as_tensor(columns)))
    return matches


def test_matching_is_faster_than_clip_by_clip(benchmark, batch):
    predictions, targets = batch
    cost = CostWeights()
    ratio = against(
        benchmark,
        "matching, against clip by clip",
        lambda: match(predictions, targets, cost),
        lambda: plain_match(predictions, targets, cost),
    )
    assert ratio > 1.3


def test_loss_is_faster_than_clip_by_clip(benchmark, batch):
    """Against one loss for each clip, added up."""
    predictions, targets = batch
    matches, weights = match(predictions, targets, CostWeights()), LossWeights()
    parts = (predictions.boxes, predictions.actor_logits, predictions.action_logits)
    leaves = [part.clone().requires_grad_() for part in parts]
    alone = [
        match(Predictions(*(part[i : i + 1] for part in parts)), [targets[i]], CostWeights())
        for i in range(CLIPS)
    ]

    def ours() -> None:
        set_loss(Predictions(*leaves), targets, matches, weights)["loss"].backward()

    def plain() -> None:
        for i in range(CLIPS):
            one = Predictions(*(t[i : i + 1] for t in leaves))
            set_loss(one, [targets[i]], alone[i], weights)["loss"].backward()

    assert against(benchmark, "loss, against clip by clip", ours, plain) > 5


@pytest.mark.parametrize("name", ["singleton", "tubelet", "c_t", "max_pooling", "two_c_t"])
def test_a_selection_costs_about_a_copy_of_the_tokens(benchmark, name):
    """Against a copy of all tokens into allocated memory: no selection should cost much more."""
    tokens = torch.randn(CLIPS, 8, 16, 16, 256)
    select, copy = getattr(selection, name), torch.empty_like(tokens)
    what = f"selection {name}, against a copy"
    assert against(benchmark, what, lambda: select(tokens), lambda: copy.copy_(tokens)) > 0.25


def test_the_report_costs_about_thirty_plain_charts(benchmark, tmp_path):
    """The page of all rows' runs, against thirty plain charts."""
    for row, exp in rows_at("tiny").items():
        folder = tmp_path / "runs" / exp.hash
        folder.mkdir(parents=True, exist_ok=True)
        classes = [f"class {i}" for i in range(60)]
        result = Result(
            experiment=asdict(exp), hash=exp.hash, training=exp.training_hash, split="test",
            protocol="standard", mAP=0.3, mAP_curve_theta=0.3, mAP_slowfast=0.3,
            mAP_untrained=0.0, mAP_random_classes=0.2,
            accuracy=None, precision=0.5, recall=0.5, candidates_per_actor=1.5, p_actor=0.9, actor_ap_50=0.8,
            actor_ap_75=0.6, class_ap_true_boxes=0.7, mAP_without_duplicates=0.4,
            per_class=dict.fromkeys(classes, 0.3), clips=600, substituted=0, gflops=0.1,
            parameters=1, seconds_training=1.0, seconds=2.0, started="2026-01-01",
            origin={"data": "d"}, commit=row, device="cpu", versions={},
        )  # fmt: skip
        (folder / "result.json").write_text(json.dumps(asdict(result)))
        analysis = Analysis(
            mAP_low=0.2, mAP_high=0.4, boxes=dict.fromkeys(classes, 5), precision=[0.5] * len(THETAS),
            recall=[0.5] * len(THETAS), errors={"missed": 0.1}, confusion=[[1 / 60] * 60] * 60,
            sampled={metric: [0.3] * (1 + SAMPLES) for metric in METRICS},
        )  # fmt: skip
        (folder / "analysis.json").write_text(json.dumps(asdict(analysis)))

    def ours() -> None:
        counted = Count(121.5, {"backbone": 120.0}, 35_740_000)
        drawn = [
            tables.build_table(name, "tiny", tmp_path / "runs", count=lambda row: counted) for name in TABLES
        ]
        page.page(tmp_path, "tiny", drawn)

    def plain() -> None:
        with charts.style():
            for number in range(30):
                figure = Figure(figsize=(6, 4), layout="constrained")
                figure.subplots().plot(range(100))
                charts.svg(figure, f"n{number}", "a line")

    assert against(benchmark, "report of 33 runs, against 30 plain charts", ours, plain) > 0.25


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("name", ["mvitv2_s", "hiera_l"])
def test_a_training_step_reaches_a_share_of_a_gpus_peak(benchmark, name):
    """Model FLOP/s of a training step in bfloat16, over those of a product of 8192 x 8192."""
    device = torch.device("cuda")

    def seconds(run: Callable[[], object], rounds: int) -> float:
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(rounds):
            run()
        torch.cuda.synchronize()
        return (time.perf_counter() - began) / rounds

    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    peak = 2 * 8192**3 / seconds(lambda: a @ a, 20)
    with torch.device("meta"):
        made = getattr(backbones, name)(frames=16, crop=256)
        macs = count_instantly(made, torch.empty(1, 3, 16, 256, 256)) * 1e9
    model = getattr(backbones, name)(frames=16, crop=256, drop_path=0.0).to(device)
    clips = torch.randn(4, 3, 16, 256, 256, device=device)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            out = model(clips)
        out.float().sum().backward()

    reached = 3 * 2 * macs * len(clips) / seconds(step, 10)  # backwards costs twice a forward
    benchmark.extra_info |= {"tflops": reached / 1e12, "peak_tflops": peak / 1e12, "share": reached / peak}
    print(f"\n{name}: {reached / 1e12:.1f} of {peak / 1e12:.1f} TFLOP/s, {reached / peak:.1%}")
    benchmark.pedantic(step, rounds=1)
    assert reached / peak > 0.05
