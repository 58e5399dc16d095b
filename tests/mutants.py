"""Do the tests notice? `python -m tests.mutants actloc_core/loss.py --tests tests/actloc_core/test_loss.py`.

One small change at a time is made to a module (a comparison turned, a sum to a difference, a number one more,
a condition reversed, a statement left out), and its tests run with `-x` in a forked process. A mutant that
they let pass is printed with its line: a test is missing, or the change is no change.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TURNED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub,
    ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
PAIRS = ("min max", "any all", "amax amin", "sum mean", "minimum maximum", "ones zeros")
CALLS = {a: b for pair in PAIRS for a, b in (pair.split(), pair.split()[::-1])}
GUARDS = ("strict", "frozen")
SECONDS = 120


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """(line, what was changed, the changed tree) of every small change."""
    places = [node for node in ast.walk(tree) if not _is_text(node)]
    told = {id(child) for node in places if isinstance(node, ast.Raise) for child in ast.walk(node)}
    told |= {id(child) for node in places for part in _annotations(node) for child in ast.walk(part)}
    # `zip(..., strict=True)` and `dataclass(frozen=True)` guard against what the code does not do.
    told |= {id(node.value) for node in places if isinstance(node, ast.keyword) and node.arg in GUARDS}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in told:
            continue
        for line, what, change in _changes(node):
            changed = copy.deepcopy(tree)
            change(_nth(changed, number))
            yield line, what, ast.fix_missing_locations(changed)


def _nth(tree: ast.Module, number: int) -> ast.AST:
    for i, node in enumerate(ast.walk(tree)):
        if i == number:
            return node
    raise IndexError(number)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _annotations(node: ast.AST) -> list[ast.AST]:
    parts = [getattr(node, name, None) for name in ("annotation", "returns")]
    return [part for part in parts if isinstance(part, ast.AST)]


def _changes(node: ast.AST) -> list[tuple[int, str, object]]:
    """What may be changed about one node: (line, what, function that does it in place)."""
    found: list[tuple[int, str, object]] = []
    line = getattr(node.target if isinstance(node, ast.comprehension) else node, "lineno", 0)

    def swap(field: str, old: ast.AST, at: int | None = None) -> None:
        new = TURNED[type(old)]

        def change(node: ast.AST) -> None:
            if at is None:
                setattr(node, field, new())
            else:
                getattr(node, field)[at] = new()

        found.append((line, f"{type(old).__name__} -> {new.__name__}", change))

    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            swap("ops", op, at)
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in TURNED:
        swap("op", node.op)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        found.append((line, f"{node.value} -> {value}", lambda node: setattr(node, "value", value)))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        twice = lambda node: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))  # noqa: E731
        found.append((line, "not x -> x", twice))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
        nothing = lambda node: setattr(node, "op", ast.UAdd())  # noqa: E731
        found.append((line, f"{type(node.op).__name__} -> nothing", nothing))
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in CALLS:
            field = "attr" if isinstance(node.func, ast.Attribute) else "id"
            found.append(
                (line, f"{name} -> {CALLS[name]}", lambda node: setattr(node.func, field, CALLS[name]))
            )
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        reverse = lambda node: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))  # noqa: E731
        found.append((line, "condition reversed", reverse))
    elif isinstance(node, ast.comprehension) and node.ifs:
        found.append((line, "filter left out", lambda node: node.ifs.clear()))
    if isinstance(getattr(node, "body", None), list):
        for at, statement in enumerate(node.body):
            if isinstance(statement, ast.AugAssign) or (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
            ):
                name = f"left out: {ast.unparse(statement)[:50]}"
                found.append(
                    (statement.lineno, name, lambda node, at=at: node.body.__setitem__(at, ast.Pass()))
                )
    return found


def passes(path: Path, tree: ast.Module, tests: list[str]) -> bool:
    """Whether the tests let this version of the module pass. Runs them in a forked process."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if name in sys.modules:
        raise RuntimeError(f"{name} is imported already: its mutants would not be what the tests meet")
    elsewhere = tempfile.TemporaryDirectory()  # a mutant of a reader may run what it reads
    pid = os.fork()
    if pid:
        begun = time.monotonic()
        with elsewhere:
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return status == 0
                if time.monotonic() - begun > SECONDS:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)
    try:
        os.chdir(elsewhere.name)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname: str) -> object:
                return compile(tree, str(path), "exec")

        class Finder:
            def find_spec(self, fullname: str, paths: object = None, target: object = None) -> object:
                if fullname != name:
                    return None
                return importlib.util.spec_from_file_location(
                    fullname, path, loader=Loader(fullname, str(path))
                )

        sys.meta_path.insert(0, Finder())
        import pytest

        quick = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:xdist"]
        place = [f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"]
        os._exit(int(pytest.main([*quick, *place, *(str(ROOT / test) for test in tests)])))
    except BaseException:
        os._exit(3)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("module", type=Path, help="whose mutants")
    parser.add_argument("--tests", nargs="+", required=True, help="files that ought to notice")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn by a seed of 0 (default: all)")
    parser.add_argument("--at-once", type=int, default=2, help="processes (default: 2)")
    args = parser.parse_args(argv)
    os.chdir(ROOT)
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import scipy.optimize  # noqa: F401
    import torch  # noqa: F401

    path = args.module.resolve()
    tree = ast.parse(path.read_text())
    every = list(mutants(tree))
    if args.sample and args.sample < len(every):
        every = random.Random(0).sample(every, args.sample)
    if not passes(path, tree, args.tests):
        print("the tests fail as it is", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(args.at_once) as pool:
        verdicts = list(pool.map(lambda one: passes(path, one[2], args.tests), every))
    survivors = [one for one, survived in zip(every, verdicts, strict=True) if survived]
    lines = path.read_text().splitlines()
    for line, what, _ in sorted(survivors, key=lambda one: one[0]):
        print(f"{args.module}:{line}: {what}: {lines[line - 1].strip()}")
    killed = len(every) - len(survivors)
    print(
        f"{args.module}: {killed} of {len(every)} mutants noticed, {100 * killed / max(len(every), 1):.0f} %"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
