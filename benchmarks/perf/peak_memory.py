"""Prints the peak resident memory of a step of MViTv2-S at 256, GiB: "plain", "ours" or "checkpointing"."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from actloc_core import backbones
from tests.actloc_core.plain_mvit import plain_forward

how = sys.argv[1]
torch.set_num_threads(2)
model = backbones.mvitv2_s(crop=256, last_pool=False, drop_path=0.0).train()
model.checkpointing = how == "checkpointing"
clip = torch.randn(1, 3, 16, 256, 256)
out = plain_forward(model, clip) if how == "plain" else model(clip)
out.square().mean().backward()
# Not getrusage: its peak is inherited from the process that started this one.
status = Path("/proc/self/status").read_text().splitlines()
peak = next(line for line in status if "VmHWM" in line)
print(int(peak.split()[1]) / 2**20)
