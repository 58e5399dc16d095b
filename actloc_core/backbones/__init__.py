"""Video backbones: clips (B, 3, T, H, W) in, tokens (B, t, h, w, D) out, D as `.out_dim`.

A backbone is one file and one line here; `getattr(backbones, name)` is the whole lookup. Each name
is a plain function with plain arguments that returns an `nn.Module`.
"""

from actloc_core.backbones.mvit import mvitv2_s as mvitv2_s
from actloc_core.backbones.mvit import mvitv2_tiny as mvitv2_tiny
