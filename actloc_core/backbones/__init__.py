"""Video backbones: clips (B, 3, T, H, W) in, tokens (B, t, h, w, D) out, D as `.out_dim`.

A backbone is one file and one line here; `getattr(backbones, name)` is the whole lookup. Each name
is a plain function with plain arguments that returns an `nn.Module`.
"""

from actloc_core.backbones.factorised import factorised_tiny as factorised_tiny
from actloc_core.backbones.hiera import hiera_b as hiera_b
from actloc_core.backbones.hiera import hiera_bplus as hiera_bplus
from actloc_core.backbones.hiera import hiera_h as hiera_h
from actloc_core.backbones.hiera import hiera_l as hiera_l
from actloc_core.backbones.hiera import hiera_s as hiera_s
from actloc_core.backbones.hiera import hiera_t as hiera_t
from actloc_core.backbones.hiera import hiera_tiny as hiera_tiny
from actloc_core.backbones.mvit import mvitv1_b as mvitv1_b
from actloc_core.backbones.mvit import mvitv2_b as mvitv2_b
from actloc_core.backbones.mvit import mvitv2_s as mvitv2_s
from actloc_core.backbones.mvit import mvitv2_tiny as mvitv2_tiny
from actloc_core.backbones.vit import vit_b as vit_b
from actloc_core.backbones.vit import vit_l as vit_l
