"""The single-stage detector: backbone, projection, token selection, three heads (Fig. 1c, Fig. 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from actloc_core import selection as selections
from actloc_core.boxes import cxcywh_to_xyxy, nms
from actloc_core.heads import Heads, full_precision, grid_bias
from actloc_core.structures import Backbone, Predictions


class ActionLocalizer(nn.Module):
    """Clip (B, 3, T, H, W) -> Predictions with L candidates a clip. No detector, decoder or queries.

    backbone: clip -> tokens (B, t, h, w, D), with D as `.out_dim`.
    selection: the name of a function in `actloc_core.selection`.
    dim: width of the candidates, 512 in Table 1.
    anchor: `heads.grid_bias`'s.
    frame_embedding: adds to the actor tokens of each output frame a learned vector of its own: near-twins
        otherwise, which take turns in the matching. The number of frames whose tokens become actor
        tokens: 2 for 2(C+T), t for singleton; 0 leaves it out, as the paper does.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        selection: str,
        num_classes: int,
        dim: int = 512,
        anchor: str = "centre",
        frame_embedding: int = 0,
    ) -> None:
        super().__init__()
        if frame_embedding and selection not in ("two_c_t", "singleton"):
            raise ValueError(
                "frame_embedding tells apart the frames that actor tokens come from; "
                f"those of selection {selection!r} all come from one"
            )
        self.backbone = backbone
        self.select = getattr(selections, selection)
        self.proj = nn.Linear(backbone.out_dim, dim)
        self.heads = Heads(dim, num_classes)
        self.anchor = anchor
        # Drawn like the backbone's position embeddings: two zero vectors would stay twins at first.
        self.frame_embedding = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(frame_embedding, dim), std=0.02))
            if frame_embedding
            else None
        )

    def forward(self, clip: Tensor, boxes: object = None) -> Predictions:
        """(B, 3, T, H, W), normalised -> Predictions of the L selected tokens.

        boxes: not used; every model is called alike, and the two-stage baseline takes boxes.
        Raises ValueError where the frame embedding is for another number of output frames.
        """
        tokens = self.proj(self.backbone(clip))  # (B, t, h, w, dim)
        h, w = tokens.shape[2:4]
        actor, action = self.select(tokens)  # (B, L, dim) each
        if self.frame_embedding is not None:
            if actor.shape[1] != len(self.frame_embedding) * h * w:
                raise ValueError(
                    f"frame_embedding is for {len(self.frame_embedding)} output frames, but actor tokens "
                    f"come from {actor.shape[1] // (h * w)}"
                )
            actor = actor + self.frame_embedding.repeat_interleave(h * w, dim=0)
        # In float32 also where the backbone computes in bfloat16, whose steps at a box's centre are a
        # pixel and more at 256.
        with full_precision(actor):
            actor, action = (x.float() if x.dtype == torch.bfloat16 else x for x in (actor, action))
            bias = grid_bias(h, w, anchor=self.anchor, device=actor.device)  # (hw, 4)
            box = torch.sigmoid(self.heads.box(actor) + bias.repeat(actor.shape[1] // (h * w), 1))
            action_logits = self.heads.action(action)
            if action_logits.dim() == 4:  # (B, t, L, C), selection.max_pooling
                action_logits = action_logits.amax(1)
            return Predictions(box, self.heads.actor(actor), action_logits)


class ActorDetections(NamedTuple):
    """The K candidates of a batch of clips whose p(alpha) is above the threshold."""

    clip: Tensor
    """(K,) int64, the clip's index in the batch."""
    boxes: Tensor
    """(K, 4) float xyxy in [0, 1]."""
    p_actor: Tensor
    """(K,) p(alpha)."""
    scores: Tensor
    """(K, C) score of each action."""


def keep_actors(
    predictions: Predictions, *, theta: float, score: str, nms_iou: float | None = None
) -> ActorDetections:
    """Inference of section 3.4: candidates with p(alpha) > theta; no NMS.

    score: "action", the sigmoid of the action logit (what the text says), or "product", that
    times p(alpha). Computed in float32 whatever the model ran in.
    nms_iou: a diagnostic that the method does without: of candidates of a clip that overlap by more
        than this IoU, only the one with the highest p(alpha) is kept.
    Raises ValueError for another score.
    """
    if score not in ("action", "product"):
        raise ValueError(f"score must be 'action' or 'product', got {score!r}")
    p_actor = predictions.p_actor
    clip, candidate = torch.nonzero(p_actor > theta, as_tuple=True)
    if nms_iou is not None:
        xyxy = cxcywh_to_xyxy(predictions.boxes.float())
        kept = [
            rows[nms(xyxy[i, candidate[rows]], p_actor[i, candidate[rows]], nms_iou)]
            for i in range(len(p_actor))
            for rows in [torch.nonzero(clip == i)[:, 0]]
        ]
        rows = torch.cat(kept).sort().values
        clip, candidate = clip[rows], candidate[rows]
    p = p_actor[clip, candidate]
    scores = predictions.action_logits[clip, candidate].float().sigmoid()
    if score == "product":
        scores = scores * p[:, None]
    boxes = cxcywh_to_xyxy(predictions.boxes[clip, candidate].float()).clamp(0, 1)
    return ActorDetections(clip, boxes, p, scores)
