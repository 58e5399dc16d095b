"""The contract of backbones and methods: ours keep it, and each broken promise is named."""

import pytest
import torch
from torch import nn

from actloc_core.backbones.factorised import factorised_tiny
from benchmarks.gates import contract
from benchmarks.gates.contract import Subject, broken, subjects


def test_every_backbone_method_and_selection_is_a_subject():
    known = subjects()
    backbones = {f"backbone/{name}" for name in ("mvitv2_tiny", "hiera_h", "vit_l", "factorised_tiny")}
    assert backbones <= set(known)
    assert {"method/two_c_t", "method/max_pooling", "method/two_stage", "method/detr"} <= set(known)
    assert [name for name, subject in known.items() if subject.trained] == [
        "backbone/factorised_tiny", "backbone/hiera_tiny", "backbone/mvitv2_tiny",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["backbone/factorised_tiny", "backbone/mvitv2_tiny", "backbone/hiera_tiny", "method/two_c_t",
             "method/two_stage", "method/detr"]
)  # fmt: skip
def test_our_models_keep_the_contract(name):
    assert broken(subjects()[name]) == {}


class Broken(nn.Module):
    """A backbone that breaks one promise."""

    def __init__(self, promise, **size):
        super().__init__()
        self.promise, self.inner = promise, factorised_tiny(**size)
        self.out_dim, self.checkpointing = self.inner.out_dim, False
        self.scale = nn.Parameter(torch.ones(1))
        if promise == "a checkpoint brings it back":
            self.hidden = torch.randn(1)

    def forward(self, clip):
        out = self.inner(clip)
        if self.promise != "gradients reach every parameter":
            out = out * self.scale
        if self.promise == "shapes at 224, 256, other aspects and lengths":
            out = out.flatten(2, 3)
        if self.promise == "a batch of one is a batch of many":
            out = out + out.mean(0, keepdim=True)
        if self.promise == "the same seed, the same numbers" and not out.is_meta:
            out = out + torch.randn(1, generator=torch.Generator().manual_seed(torch.seed() % 2**31))
        if self.promise == "float64 in, float64 out":
            out = out.float()
        if self.promise == "torch.compile takes it whole" and not out.is_meta:
            out = out + 1 if out.sum() > 0 else out - 1
        if self.promise == "a checkpoint brings it back":
            out = out + self.hidden.to(out)
        return out


@pytest.mark.parametrize(
    "promise",
    [
        "shapes at 224, 256, other aspects and lengths",
        "a batch of one is a batch of many",
        "gradients reach every parameter",
        "the same seed, the same numbers",
        "float64 in, float64 out",
        pytest.param("torch.compile takes it whole", marks=pytest.mark.slow),  # imports torch's compiler
        "a checkpoint brings it back",
    ],
)
def test_a_broken_promise_is_named(promise, monkeypatch):
    monkeypatch.setattr(contract, "Backbone", (contract.Backbone, Broken))
    subject = Subject("method/broken", lambda **size: Broken(promise, **size), True, False)
    known = contract.promises(subject)
    # The one promise alone: all of them take a second for each of seven subjects.
    monkeypatch.setattr(contract, "promises", lambda subject: {promise: known[promise]})
    assert list(broken(subject)) == [promise]
