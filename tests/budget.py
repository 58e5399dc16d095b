"""What the suite may take, on any machine: seconds are compared with a computation of the same run.

`nox -s tests` runs before every commit, so it takes at most PRODUCTS: 150 s on a slow machine of two cores,
on which a product of two 4096 x 4096 matrices takes 1.37 s. `nox -s slow` may take six times that. A test of
over 2 s there is marked slow or says why, `@pytest.mark.takes_long("why")`. The end of a session
says what it took and which tests do neither. Nothing fails for its time: a machine may be busy.
"""

import time

import torch

PRODUCTS = {"tests": 110, "slow": 655}
"""Session -> how many reference computations it may take."""
LONGEST = (
    "test_cluster.py",
    "test_interrupted.py",
    "test_trials.py",
    "test_docs.py",
    "test_ablations.py",
    "test_search.py",
    "test_export.py",
)
"""Files that are started first, in this order: they take minutes, and processes are to end together."""
LONG = 1.46  # 2 s
"""Reference computations from which a test is long."""


def reference_seconds() -> float:
    """Seconds of a product of two 4096 x 4096 matrices on two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    a, times = torch.ones(4096, 4096), []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(a, a)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return min(times)


def summary(session, reports, seconds):
    """Lines for the end of a session that took this long. reports: pytest's of the tests that passed."""
    reference = reference_seconds()
    yield (
        f"budget: {seconds:.0f} s are {seconds / reference:.0f} products of {reference:.2f} s; "
        f"tests/budget.py has {PRODUCTS[session]}"
    )
    for report in sorted(reports, key=lambda report: -report.duration):
        long = session == "tests" and report.duration > LONG * reference
        if long and "takes_long" not in report.keywords:
            yield f"{report.duration:.1f} s: {report.nodeid} is neither slow nor says why it takes_long"
