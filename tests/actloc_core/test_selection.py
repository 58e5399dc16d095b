import pytest
import torch

from actloc_core import selection

T, H, W, D = 4, 2, 3, 5
ALL = ["singleton", "tubelet", "c_t", "max_pooling", "two_c_t"]


@pytest.fixture
def tokens():
    """Token (t, h, w) is the number thw in every channel: 100 t + 10 h + w."""
    t, h, w = torch.meshgrid(torch.arange(T), torch.arange(H), torch.arange(W), indexing="ij")
    return (100.0 * t + 10 * h + w).expand(1, D, T, H, W).movedim(1, -1)


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("singleton", T * H * W),
        ("tubelet", H * W),
        ("c_t", H * W),
        ("max_pooling", H * W),
        ("two_c_t", 2 * H * W),
    ],
)
def test_number_of_candidates(name, candidates, tokens):
    actor, action = getattr(selection, name)(tokens)
    assert actor.shape == (1, candidates, D)
    assert action.shape[-2:] == (candidates, D)


def test_singleton_runs_over_time_then_rows_then_columns(tokens):
    actor, action = selection.singleton(tokens)
    assert actor is action
    assert actor[0, :, 0].tolist()[:8] == [0, 1, 2, 10, 11, 12, 100, 101]


def test_tubelet_means_over_time(tokens):
    actor, _ = selection.tubelet(tokens)
    assert actor[0, :, 0].tolist() == [150, 151, 152, 160, 161, 162]


def test_c_t_localises_at_the_keyframe_and_classifies_over_time(tokens):
    actor, action = selection.c_t(tokens)
    assert actor[0, :, 0].tolist() == [200, 201, 202, 210, 211, 212]
    assert action[0, :, 0].tolist() == [150, 151, 152, 160, 161, 162]


def test_two_c_t_pairs_each_central_frame_with_its_half(tokens):
    actor, action = selection.two_c_t(tokens)
    assert actor[0, :, 0].tolist() == [100, 101, 102, 110, 111, 112, 200, 201, 202, 210, 211, 212]
    assert action[0, :, 0].tolist() == [50, 51, 52, 60, 61, 62, 250, 251, 252, 260, 261, 262]


def test_max_pooling_keeps_time_for_the_class_logits(tokens):
    actor, action = selection.max_pooling(tokens)
    assert actor[0, 0, 0] == 200
    assert action.shape == (1, T, H * W, D)
    assert action[0, :, 1, 0].tolist() == [1, 101, 201, 301]


def test_two_c_t_needs_two_frames(tokens):
    with pytest.raises(ValueError, match="needs at least two output frames"):
        selection.two_c_t(tokens[:, :1])


@pytest.mark.parametrize("name", ALL)
def test_every_row_depends_on_its_own_cell_only(name, tokens):
    """One-to-one: shifting one cell's tubelet moves the rows of that cell in actor and action alike."""
    cell = tokens.clone()
    cell[:, :, 1, 2] += 1000
    for before, after in zip(getattr(selection, name)(tokens), getattr(selection, name)(cell), strict=True):
        moved = (before != after).any(-1)
        moved = moved.any(1) if moved.dim() == 3 else moved
        assert moved.view(-1, H * W).all(0).tolist() == [False] * 5 + [True]
