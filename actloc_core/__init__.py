"""Single-stage action localization by bipartite matching of a video transformer's output tokens.

    from actloc_core import ActionDetector, load_backbone

    actors = ActionDetector("tiny")(frames, fps=25)     # see `actloc_core.detector`
    load_backbone(model.backbone, "k400.pyth")          # published weights, see `actloc_core.checkpoints`

Both come with torch, which takes seconds to import: with their first use, not with the package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from actloc_version import __version__ as __version__

if TYPE_CHECKING:
    from actloc_core.checkpoints import load_backbone as load_backbone
    from actloc_core.detector import ActionDetector as ActionDetector

_MODULES = {"ActionDetector": "actloc_core.detector", "load_backbone": "actloc_core.checkpoints"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
