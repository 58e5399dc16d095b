from dataclasses import fields, replace

import pytest

from benchmarks.experiments import OURS, ROWS, SCALES, TABLES, Experiment, at_scale, choose


def test_the_paper_row_is_the_papers_recipe():
    """Section 4: T=16 stride 4 at 256, AdamW 1e-4 / 1e-4, 25 epochs of batch 16, lambdas 2, 6, 5, 2."""
    exp = ROWS["2b/two_c_t"]
    assert (exp.frames, exp.stride, exp.crop, exp.epochs, exp.batch) == (16, 4, 256, 25, 16)
    assert (exp.lr, exp.weight_decay, exp.theta) == (1e-4, 1e-4, 0.2)
    assert (exp.actor, exp.action, exp.l1, exp.giou) == (2, 6, 5, 2)
    assert not exp.frame_embedding
    assert not exp.last_pool


def test_equal_rows_of_two_tables_are_one_run():
    assert ROWS["2a/256_16"].hash == ROWS["2b/two_c_t"].hash
    assert len({exp.hash for exp in ROWS.values()}) == len(ROWS) - 1


@pytest.mark.parametrize("scale", SCALES)
def test_no_scale_merges_rows_that_differ(scale):
    assert len({at_scale(exp, scale).hash for exp in ROWS.values()}) == len(ROWS) - 1


def test_a_scale_keeps_what_the_rows_ablate():
    for exp in ROWS.values():
        tiny = at_scale(replace(exp, seed=3), "tiny")
        for name in ("selection", "last_pool", "frame_embedding"):
            assert getattr(tiny, name) == getattr(exp, name)
        assert tiny.seed == 3
    assert at_scale(OURS, "paper") is OURS


def test_every_field_decides_the_hash():
    for field in fields(Experiment):
        value = getattr(OURS, field.name)
        if value is None:
            other = (1, 2)
        else:
            other = (
                not value if isinstance(value, bool) else value + "x" if isinstance(value, str) else value + 1
            )
        assert replace(OURS, **{field.name: other}).hash != OURS.hash, field.name


def test_rows_are_chosen_by_table_or_by_name():
    assert choose([]) == ROWS
    assert list(choose(["2b/tubelet"])) == ["2b/tubelet"]
    assert len(choose(["2b"])) == len(TABLES["2b"])
    assert list(choose(["2b/tubelet", "2a"])) == ["2b/tubelet", "2a/256_8", "2a/256_16"]


@pytest.mark.parametrize(
    ("wrong", "near"), [("2b/tublet", "2b/tubelet"), ("tubelet", "2b/tubelet"), ("2c", "2a")]
)
def test_an_unknown_row_names_the_nearest(wrong, near):
    with pytest.raises(ValueError, match=f"no experiment is called '{wrong}'; nearest: .*{near}"):
        choose([wrong])


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="smoke, tiny, paper; got 'huge'"):
        at_scale(OURS, "huge")
