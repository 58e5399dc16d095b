"""Single-stage action localization by bipartite matching of a video transformer's output tokens.

    from actloc_core import ActionDetector, load_backbone

    actors = ActionDetector("tiny")(frames, fps=25)     # see `actloc_core.detector`
    load_backbone(model.backbone, "k400.pyth")          # published weights, see `actloc_core.checkpoints`

Both come with torch, which takes seconds to import: with their first use, not with the package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actloc_core.checkpoints import load_backbone as load_backbone
    from actloc_core.detector import ActionDetector as ActionDetector

__version__ = "0.1.0.dev0"
"""Also of `evaluators`, which the same distribution has."""

_MODULES = {"ActionDetector": "actloc_core.detector", "load_backbone": "actloc_core.checkpoints"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
