"""Classification of clips, the pre-training of the paper's backbones: mean token and a linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from actloc_core.heads import full_precision
from actloc_core.structures import Backbone, Predictions

SURE = 14.0
"""Actor logit of the one candidate: p(alpha) is 1 to seven digits."""


class ClipClassifier(nn.Module):
    """Clip (B, 3, T, H, W) -> Predictions of one candidate, the whole frame, with the clip's class logits.

    So a labelled clip is a clip with one actor whose box is the frame: it is trained, matched and scored by
    the same code as all others, and its frame-mAP is the mean average precision of classes over clips.
    """

    def __init__(self, backbone: Backbone, *, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_dim, num_classes)

    def forward(self, clip: Tensor, boxes: object = None) -> Predictions:
        """(B, 3, T, H, W), normalised -> Predictions, L = 1. boxes: not used."""
        mean = self.backbone(clip).flatten(1, 3).mean(1)  # (B, D)
        with full_precision(mean):
            logits = self.head(mean.float() if mean.dtype == torch.bfloat16 else mean)
        frame = logits.new_tensor([0.5, 0.5, 1.0, 1.0]).expand(len(logits), 1, 4)
        sure = logits.new_tensor([SURE, 0.0]).expand(len(logits), 1, 2)
        return Predictions(frame, sure, logits[:, None])
