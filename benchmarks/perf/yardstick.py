"""Time our implementation against a plain one, in turn in one process."""

from collections.abc import Callable
from statistics import median

from benchmarks.gates.measure import in_turn


def against(
    benchmark, what: str, ours: Callable[[], object], plain: Callable[[], object], *, turns: int = 5
) -> float:
    """Median seconds of the plain implementation over ours; printed, and in the saved JSON."""
    fast, slow = (median(seconds) for seconds in zip(*in_turn(ours, plain, turns=turns), strict=True))
    benchmark.extra_info |= {"plain_s": slow, "fast_s": fast, "ratio": slow / fast}
    print(f"\n{what}: plain {1e3 * slow:.1f} ms, ours {1e3 * fast:.1f} ms, {slow / fast:.2f}x")
    benchmark.pedantic(ours, rounds=turns)  # for --benchmark-compare
    return slow / fast
