"""Runs `benchmarks.gpu` on the CPU where most packages are missing: OUT. Its exit code is the command's."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

MISSING = {
    *("av", "decord", "fvcore", "filelock", "grimp", "matplotlib", "pooch", "pycocotools", "ray", "rich"),
    "seaborn",
}


class Missing(MetaPathFinder):
    """Finds none of MISSING, and says so before anybody else is asked."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raise ModuleNotFoundError for a missing package."""
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())  # in the processes that render scenes, too

if __name__ == "__main__":
    import torch

    from benchmarks import gpu

    torch.set_num_threads(1)
    options = ["--device", "cpu", "--quick", "--train-seconds", "1", "--out", sys.argv[1]]
    sys.exit(gpu.main(options))
