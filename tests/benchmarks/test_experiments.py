import itertools
from dataclasses import fields, replace

import pytest

from benchmarks.experiments import (
    INFERENCE_FIELDS,
    INITIAL_ROWS,
    OURS,
    ROWS,
    SCALES,
    TABLES,
    TRAINING,
    Experiment,
    at_scale,
    choose,
    rows_at,
    scale_of,
    size_of,
)


def test_the_paper_row_is_the_papers_recipe():
    """Section 4: T=16 stride 4 at 256, AdamW 1e-4 / 1e-4, 25 epochs of batch 16, lambdas 2, 6, 5, 2."""
    exp = ROWS["2b/two_c_t"]
    assert (exp.frames, exp.stride, exp.crop, exp.epochs, exp.batch) == (16, 4, 256, 25, 16)
    assert (exp.lr, exp.weight_decay, exp.theta) == (1e-4, 1e-4, 0.2)
    assert (exp.actor, exp.action, exp.l1, exp.giou) == (2, 6, 5, 2)
    assert not exp.frame_embedding
    assert not exp.last_pool


def test_equal_rows_of_several_tables_are_one_run():
    same = [name for name, exp in ROWS.items() if exp.hash == OURS.hash]
    assert same == [
        "2a/256_16", "2b/two_c_t", "2c/fixed", "fig1/ours", "3/mvitv2_s",
        "ours/two_c_t", "ours/score_action", "ours/theta_0.2",
    ]  # fmt: skip


@pytest.mark.parametrize("scale", SCALES)
def test_rows_are_equal_at_one_scale_exactly_where_they_are_at_another(scale):
    """But for theta and score in our table, whose default the small scales change."""
    paper, scaled = rows_at("paper"), rows_at(scale)
    names = [n for n in paper if not n.startswith(("ours/theta", "ours/score"))]
    for a, b in itertools.combinations(names, 2):
        assert (paper[a].hash == paper[b].hash) == (scaled[a].hash == scaled[b].hash), (a, b)


@pytest.mark.parametrize("scale", SCALES)
def test_no_scale_changes_the_theta_and_score_that_our_table_ablates(scale):
    rows = rows_at(scale)
    thetas = {float(name.split("_")[-1]): exp.theta for name, exp in rows.items() if "/theta_" in name}
    assert len(thetas) == 7
    assert all(named == theta for named, theta in thetas.items())
    assert rows["ours/score_action"].score == "action"
    assert rows["ours/score_product"].score == "product"
    default = "ours/score_product" if scale != "paper" else "ours/score_action"
    assert rows[default].hash == rows["ours/two_c_t"].hash


def test_a_scale_keeps_the_fields_that_rows_ablate():
    kept = ["method", "selection", "last_pool", "frame_embedding", "anchor", "eos_coef", "match_action"]
    kept += ["tie_break", "nms_iou", "boxes"]
    for name, tiny in rows_at("tiny", seed=3).items():
        exp = ROWS[name]
        assert all(getattr(tiny, field) == getattr(exp, field) for field in kept)
        assert tiny.seed == 3
        assert tiny.crop == (64 if exp.backbone == "hiera_l" else exp.crop // 4)
    assert rows_at("tiny")["2c/variable"].short_sides == (60, 85)
    assert rows_at("tiny")["3/hiera_l"].backbone == "hiera_tiny"
    assert rows_at("tiny")["ours/epochs_50"].epochs == 2 * rows_at("tiny")["ours/two_c_t"].epochs
    assert at_scale(OURS, "paper") is OURS


def test_settings_are_fields_of_every_row_of_their_type():
    settings = ["batch=4", "lr=2e-3", "checkpointing=true", "short_sides=32,48", "ema=0.9"]
    scale = scale_of("tiny", settings)
    assert scale == " --set ".join(["tiny", *settings])
    assert size_of(scale) == size_of("tiny") == "tiny"
    rows, plain = rows_at(scale, seed=2), rows_at("tiny", seed=2)
    for name, exp in rows.items():
        changed = replace(plain[name], batch=4, lr=2e-3, checkpointing=True, short_sides=(32, 48), ema=0.9)
        assert exp == changed
        assert exp.hash != plain[name].hash
    assert rows_at(scale_of("paper", ["weights=none"]))["2b/c_t"].weights is None
    assert rows_at(scale_of("paper", ["theta=0.3"]))["2b/c_t"].training_hash == ROWS["2b/c_t"].training_hash


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("bacth=4", "write FIELD=VALUE; nearest fields: batch,"),
        ("batch", "write FIELD=VALUE"),
        ("batch=4.5", "batch is of type int, such as 16; whole numbers are at least 1"),
        ("batch=0", "batch is of type int"),
        ("lr=fast", "lr is of type float, such as 0.0001"),
        ("lr=-1", "lr is of type float"),
        ("lr=nan", "lr is of type float"),
        ("epochs=inf", "epochs is of type float"),
        ("bf16=1", "bf16 is of type bool, such as True"),
        ("short_sides=240", r"short_sides is of type tuple\[int, int\] \| None, such as None"),
        ("short_sides=340,240", "short_sides is of type"),
        ("lr=none", "lr is of type float"),
        ("seed=3", "every row runs from the seeds of --seeds"),
    ],
)
def test_settings_that_are_none_are_refused(setting, message):
    with pytest.raises(ValueError, match=f"--set {setting}: .*{message}"):
        scale_of("tiny", [setting])


def test_rows_that_differ_in_inference_only_fields_share_a_training():
    """Every other field names another training."""
    for field in fields(Experiment):
        value = getattr(OURS, field.name)
        other = other_than(value)
        changed = replace(OURS, **{field.name: other})
        assert (changed.training_hash == OURS.training_hash) == (field.name in INFERENCE_FIELDS), field.name
    rows = rows_at("tiny")
    assert rows["ours/theta_0.5"].training_hash == rows["2b/two_c_t"].training_hash
    assert rows["2a/two_stage"].training_hash == rows["2a/two_stage_true_boxes"].training_hash


def test_small_rows_are_initialised_from_the_pre_training_of_their_backbone():
    """As the paper's rows share the published weights, whatever their seeds and their datasets."""
    initial = {
        published: TRAINING + rows_at("tiny")[row].training_hash for published, row in INITIAL_ROWS.items()
    }
    for seed in (0, 1):
        for name, tiny in rows_at("tiny", seed=seed).items():
            published = ROWS[name].weights
            assert tiny.weights == (None if published is None else initial[published]), name
    drawn = {name for name, exp in ROWS.items() if exp.weights is None}
    assert {name for name in drawn if not name.startswith("ours/drawn_weights")} == set(INITIAL_ROWS.values())
    assert all(ROWS[name].method == "classification" for name in INITIAL_ROWS.values())


def other_than(value):
    if value is None:
        return (1, 2)
    if isinstance(value, bool):
        return not value
    return value + ("x" if isinstance(value, str) else 1)


def test_every_field_decides_the_hash():
    for field in fields(Experiment):
        changed = replace(OURS, **{field.name: other_than(getattr(OURS, field.name))})
        assert changed.hash != OURS.hash, field.name


def test_rows_are_chosen_by_table_or_by_name():
    assert choose() == [name for name in ROWS if not name.startswith(("pretraining/", "ours/"))]
    assert choose(["2b/tubelet"]) == ["2b/tubelet"]
    assert len(choose(["2b"])) == len(TABLES["2b"])
    assert choose(["2b/tubelet", "2c"]) == ["2b/tubelet", "2c/variable", "2c/fixed"]
    assert choose(["ours"]) == [name for name in ROWS if name.startswith("ours/")]
    assert choose(rows=["tubelet", "2a/256_8"]) == ["2a/256_8", "2b/tubelet"]
    assert choose(["2b"], ["c_t", "tubelet"]) == ["2b/tubelet", "2b/c_t"]


@pytest.mark.parametrize(
    ("only", "rows", "near"),
    [
        (["2b/tublet"], [], "unknown table or row '2b/tublet'; nearest: 2b/tubelet"),
        (["tubelet"], [], "unknown table or row 'tubelet'; nearest: 2b/tubelet"),
        (["5"], [], "unknown table or row '5'; nearest: "),
        ([], ["tublet"], "unknown row 'tublet'; nearest: 2b/tubelet"),
        (["2a"], ["tubelet"], "unknown row 'tubelet' in 2a; nearest: 2b/tubelet"),
    ],
)
def test_an_unknown_row_names_the_nearest(only, rows, near):
    with pytest.raises(ValueError, match=near):
        choose(only, rows)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="smoke, tiny, paper; got 'huge'"):
        at_scale(OURS, "huge")


def test_a_field_added_later_is_in_the_hash_where_it_is_set():
    assert replace(OURS, leave_out_missing=True).hash != OURS.hash
    assert "leave_out_missing" not in OURS._values()
