"""As sitecustomize, beside slow_steps.py: a checkpoint after each slow step, and short validations."""

import slow_steps as slow_steps

import benchmarks.context
import benchmarks.score.predict

benchmarks.context.CHECKPOINT_EVERY_S = 0.0
benchmarks.score.predict.SMALL_VALIDATION_CLIPS = 4
