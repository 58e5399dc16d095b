"""Results in a notebook: as a pandas frame, and as the HTML that Jupyter shows of a result by itself.

`Shown` gives results `to_frame()`. Fractions in frames are in [0, 1], as in the results; the shown text is
`summarise`'s, and its table is in per cent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from html import escape
from math import isnan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class Shown:
    """What the results of the evaluators have in a notebook."""

    def to_frame(self) -> pd.DataFrame:
        """The result's numbers by class, threshold or cause. ImportError without pandas."""
        return to_frame(self)

    def _repr_html_(self) -> str:
        return html(self)


MOST = 100
"""Rows that Jupyter shows."""


@dataclass(frozen=True)
class Columns:
    """Numbers of a result as columns of one length."""

    index: tuple[Any, ...]
    """Class ids, thresholds or causes,"""
    index_name: str
    columns: dict[str, list[Any]]
    counts: frozenset[str] = frozenset()
    """Columns that are no shares."""


@singledispatch
def columns(result: object) -> Columns:
    """The columns of a result. TypeError: not a result of an evaluator."""
    raise TypeError(f"{type(result).__name__} is not a result of an evaluator")


def of_classes(
    classes: Mapping[int, str],
    values: Mapping[str, Mapping[int, float]],
    counts: Mapping[str, Mapping[int, int]] | None = None,
) -> Columns:
    """Columns with a row per class: its name, then these by class id."""
    counts = counts or {}
    made: dict[str, list[Any]] = {"class": list(classes.values())}
    for name, of in (*values.items(), *counts.items()):
        made[name] = [of[i] for i in classes]
    return Columns(tuple(classes), "id", made, frozenset({"class", *counts}))


def to_frame(result: object) -> pd.DataFrame:
    """A result as a pandas frame; NaN where a class has no number. ImportError without pandas."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame needs pandas, which is not installed: pip install pandas") from error
    made = columns(result)
    return pd.DataFrame(made.columns, index=pd.Index(made.index, name=made.index_name))


def html(result: object) -> str:
    """The summary and the table of a result, for Jupyter."""
    from evaluators.present import summarise

    made = columns(result)
    head = "".join(f"<th>{escape(name)}</th>" for name in (made.index_name, *made.columns))
    rows = []
    for i, index in enumerate(made.index[:MOST]):
        cells = [_cell(values[i], share=name not in made.counts) for name, values in made.columns.items()]
        rows.append(f"<tr><th>{escape(str(index))}</th>{''.join(cells)}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    more = len(made.index) - MOST
    rest = f"<p>.. and {more:,} more: <code>to_frame()</code></p>" if more > 0 else ""
    return f"<pre>{escape(summarise(result))}</pre>{table}{rest}"


def _cell(value: object, *, share: bool) -> str:
    if isinstance(value, float) and isnan(value):
        return "<td>-</td>"
    text = str(value)
    if isinstance(value, float):
        text = f"{100 * value:.2f}" if share else f"{value:.3g}"
    return f"<td>{escape(text)}</td>"
