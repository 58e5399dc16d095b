"""As sitecustomize, beside slow_steps.py: a checkpoint after each slow step."""

import slow_steps as slow_steps

import benchmarks.context

benchmarks.context.CHECKPOINT_EVERY_S = 0.0
