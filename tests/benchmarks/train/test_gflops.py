"""The counts against numbers worked by hand, measured elsewhere, and each other."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from actloc_core import backbones
from actloc_core.backbones.mvit import MViT
from benchmarks import experiments
from benchmarks.train.gflops import (
    PAPER,
    ROWS,
    build,
    count,
    count_instantly,
    count_row,
    detectors,
    parameters,
)

# fvcore's counts of the original implementations (PySlowFast's, Hiera's, VideoMAE's), and of the
# four detectors of Table 2a assembled from them as Table 1 says.
MEASURED = {
    "table2a_224_7": 64.718,
    "table2a_224_14": 86.649,
    "table2a_256_8": 90.313,
    "table2a_256_16": 121.516,
    "mvitv2_s_k400_224": 64.4569,
    "mvitv2_b_32x3_224": 225.17,
    "mvitv1_b_16x4_224": 70.80,
    "mvitv1_b_64x3_224": 455.88,
    "hiera_t_224": 50.96,
    "hiera_s_224": 69.64,
    "hiera_b_224": 101.93,
    "hiera_bplus_224": 132.54,
    "hiera_l_224": 412.67,
    "hiera_h_224": 1158.8,
    "hiera_l_256": 579.62,
    "hiera_l_256_no_last_pool": 705.8,
    "vit_b_224": 180.5,
    "vit_l_224": 597.2,
    # Half the tokens' frames in the patch embedding: 1568 tokens x 768 x (width) less.
    "vit_b_umt_224": 180.495 - 1568 * 768 * 768 / 1e9,
    "vit_l_umt_224": 597.226 - 1568 * 768 * 1024 / 1e9,
}
PARAMETERS = {
    "mvitv2_s_k400_224": 34_537_744,
    "mvitv2_b_32x3_224": 51_230_128,
    "mvitv1_b_16x4_224": 36_610_672,
}


def on_meta(model_of, *shape):
    with torch.device("meta"):
        return model_of().eval(), torch.empty(shape or (1, 3, 16, 224, 224))


def parameters_of(name, crop):
    with torch.device("meta"):
        return parameters(getattr(backbones, name)(crop=crop, last_pool=True))


def both(model_of, *shape):
    """fvcore's count and the instant one of the same model."""
    instant = count_instantly(*on_meta(model_of, *shape))
    return count(model_of().eval(), torch.zeros(shape)), instant


@pytest.mark.slow
def test_the_instant_count_of_every_row_is_the_measured_one():
    rows = {**ROWS, **detectors()}
    assert set(MEASURED) >= set(ROWS)
    for name, gflops in MEASURED.items():
        counted = count_row(rows[name], instant=True)
        assert counted.gflops == pytest.approx(gflops, rel=1e-3), name
        assert counted.params == PARAMETERS.get(name, counted.params), name


@pytest.mark.slow
def test_table_2a_is_within_a_percent_and_a_half_of_the_paper():
    for name, paper in PAPER.items():
        if name.startswith("table2a_"):
            counted = count_row(detectors()[name], instant=True)
            assert counted.gflops == pytest.approx(paper, rel=0.015), name


def test_the_instant_count_computes_nothing():
    """A model of 34 M parameters and its clip on the meta device: no tensor with numbers is made."""
    model, clip = on_meta(lambda: build(ROWS["mvitv2_s_k400_224"]))
    made = []

    class OnMeta(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.extend(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor) and not x.is_meta)
            return out

    with OnMeta():
        count_instantly(model, clip)
    assert sum(made) < 1e6, "tables of positions at most"


def test_the_instant_count_refuses_layers_of_the_wrong_width():
    tokens = torch.empty(1, 8, 96, device="meta")
    with torch.device("meta"):
        for layer in (nn.Linear(64, 8), nn.LayerNorm(64)):
            with pytest.raises(RuntimeError, match="64"):
                count_instantly(layer, tokens)
        with pytest.raises(RuntimeError):
            count_instantly(F.scaled_dot_product_attention, tokens, tokens[..., :64], tokens)


@pytest.mark.filterwarnings("ignore")  # fvcore and the tracer warn of their own old habits
@pytest.mark.parametrize(("version", "last_pool"), [(1, True), (2, False)])
def test_fvcore_and_instant_agree_on_mvit(version, last_pool):
    def model():
        return MViT(
            input_size=(8, 64, 64),
            patch_kernel=(3, 7, 7),
            patch_stride=(2, 4, 4),
            depths=(1, 2),
            dims=(8, 16),
            heads=(1, 2),
            kv_strides=(4, 2),
            last_pool=last_pool,
            drop_path=0.0,
            cls_token=True,
            version=version,
        )

    recorded, instant = both(model, 1, 3, 8, 64, 64)
    assert recorded.gflops == pytest.approx(instant, rel=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        *("2b/max_pooling", "2a/two_stage", "fig1/detr", "3/hiera_l"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("2b/singleton", "2c/variable")),
    ],
)
def test_fvcore_and_instant_agree_on_every_kind_of_row(name):
    row = experiments.rows_at("tiny")[name]
    recorded, instant = count_row(row, instant=False), count_row(row, instant=True)
    assert recorded.gflops == pytest.approx(instant.gflops, rel=1e-4)
    assert recorded.params == instant.params
    assert instant.after_backbone == pytest.approx(recorded.after_backbone, rel=1e-4)
    # What a model does itself, between its parts: samples of boxes, likeness of places.
    assert 0.97 * recorded.gflops < sum(recorded.parts.values()) <= recorded.gflops * (1 + 1e-9)


def test_encoder_and_decoder_of_detr_count_as_worked_by_hand():
    """DETR's six and six layers of 256 with an MLP of 2048, on 2048 tokens, with 100 queries."""
    n, q, d, mlp, norm = 2048, 100, 256, 2 * 256 * 2048, 5 * 256
    encoder = n * (4 * d * d + mlp + 2 * norm) + 2 * n * n * d
    decoder = (
        q * (4 * d * d + mlp + 3 * norm)  # self-attention, MLP, norms
        + 2 * q * q * d
        + q * 2 * d * d + n * 2 * d * d  # q and out; k and v of the tokens
        + 2 * q * n * d + q * n * d + 8 * 2 * q * n  # attention; the likeness of places, weighed by each head
    )  # fmt: skip
    heads = q * (4 * d * d + d * (4 + 2 + 80))
    ends = n * 768 * d + n * norm + q * norm
    counted = count_row(experiments.ROWS["fig1/detr"], instant=True)
    assert counted.after_backbone * 1e9 == pytest.approx(6 * (encoder + decoder) + heads + ends, rel=1e-6)


def test_the_two_stage_head_counts_14_x_14_samples_and_a_linear_layer_a_box():
    counted = count_row(experiments.ROWS["2a/two_stage"], instant=True)
    assert counted.after_backbone * 1e9 == pytest.approx(10 * (768 * 80 + 4 * 768 * 14 * 14), rel=1e-6)
    assert counted.params - parameters_of("mvitv2_s", 224) == 768 * 80 + 80


def test_each_row_of_the_tables_is_counted_once():
    named = detectors()
    assert "table2a_256_16" in named
    assert "table2b_two_c_t" not in named, "the same model"
    kinds = {"table2a_two_stage", "table2b_singleton", "table2c_variable", "fig1_detr", "table3_hiera_l"}
    assert kinds <= set(named)
    assert set(PAPER) <= set(named)


@pytest.mark.filterwarnings("ignore")
def test_an_attention_counts_both_products_at_the_width_before_padding():
    """3 queries, 5 keys, width 4, two heads: 2 x 2 x 3 x 5 x 4; a padded v counts as before padding."""

    class Attention(nn.Module):
        def __init__(self, pad):
            super().__init__()
            self.pad = pad

        def forward(self, x):
            q = F.pad(x[:, :, :3], (0, self.pad))
            k = F.pad(x, (0, self.pad))
            return F.scaled_dot_product_attention(q, k, F.pad(x, (0, self.pad)))

    for pad in (0, 6):
        recorded, instant = both(lambda pad=pad: Attention(pad), 1, 2, 5, 4)
        assert recorded.gflops * 1e9 == pytest.approx(240)
        assert instant * 1e9 == pytest.approx(240)


@pytest.mark.filterwarnings("ignore")
def test_an_operation_without_a_rule_is_an_error():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    with pytest.raises(ValueError, match="no rule counts aten::fft_fft"):
        count(Fourier(), torch.zeros(1, 3, 2, 4, 4))


def test_the_heads_are_table_1s():
    """768 -> 512 on 2048 tokens; each of 512 candidates four 512 x 512 layers and 4, 2 and 80 outputs."""
    with torch.device("meta"):
        model = build(experiments.OURS)
        tokens = torch.empty(1, 512, 512)
        proj = count_instantly(model.proj, torch.empty(1, 2048, 768)) * 1e9
        heads = sum(count_instantly(head, tokens) for head in model.heads.children()) * 1e9
    assert proj == 2048 * 768 * 512
    assert heads == 512 * (4 * 512**2 + 512 * (4 + 2 + 80))


def test_every_named_backbone_exists():
    assert all(hasattr(backbones, row.backbone) for row in ROWS.values())
