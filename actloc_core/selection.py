"""Token selection (section 5.2 of the paper): from output tokens to L candidates.

tokens (B, t, h, w, D) -> actor (B, L, D), action (B, L, D): row l of both is the same candidate.
Candidates run over time, then rows, then columns of the grid. Pure functions, no parameters; a new
selection is one more function here, looked up by its name.
"""

from __future__ import annotations

import torch
from torch import Tensor


def singleton(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Every token is a candidate: (B, t, h, w, D) -> (B, thw, D) twice."""
    every = tokens.flatten(1, 3)
    return every, every


def tubelet(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over time localises and classifies: (B, t, h, w, D) -> (B, hw, D) twice."""
    mean = tokens.mean(1).flatten(1, 2)
    return mean, mean


def c_t(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """C+T: the central frame localises, the mean over time classifies: (B, t, h, w, D) -> (B, hw, D) each."""
    return central(tokens).flatten(1, 2), tokens.mean(1).flatten(1, 2)


def max_pooling(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The central frame localises, the class logits of all times are maxed: L = hw.

    The action tokens keep their time axis, (B, t, L, D): the model takes the maximum over it after
    the classification head, "max pooling of class predictions".
    """
    return central(tokens).flatten(1, 2), tokens.flatten(2, 3)


def two_c_t(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """2(C+T), Eqs. 1 and 2, the paper's choice: two central frames localise, each half's mean classifies.

    (B, t, h, w, D) -> (B, 2hw, D) each. Raises ValueError for a single output frame.
    """
    t = tokens.shape[1] // 2
    if t == 0:
        raise ValueError("2(C+T) needs at least two output frames, got one; give the clip more frames")
    actor = tokens[:, t - 1 : t + 1]
    # Eq. 2 sums t' > T/2 but divides by T/2 terms; we average frames T/2 .. T-1.
    action = torch.stack([tokens[:, :t].mean(1), tokens[:, t:].mean(1)], dim=1)
    return actor.flatten(1, 3), action.flatten(1, 3)


def central(tokens: Tensor) -> Tensor:
    """(B, t, h, w, D) -> (B, h, w, D): token t // 2, the one centred on the keyframe (clip index T/2)."""
    return tokens[:, tokens.shape[1] // 2]
