"""Imports modules where packages are not installed: PACKAGES MODULES, each with commas."""

import importlib
import sys

sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
for module in sys.argv[2].split(","):
    importlib.import_module(module)
