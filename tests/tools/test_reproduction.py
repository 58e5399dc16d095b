"""docs/reproduction.md has every number of the paper, and its GFLOPs are those counted now."""

import pytest

from benchmarks.experiments import DEFAULT, ROWS
from reports.tables import published
from tools.reproduction import MARK, PAGE, lines, table


@pytest.mark.slow
def test_every_row_of_the_paper_has_a_line():
    rows = {line["row"]: line for line in lines()}
    for name, paper in published().iterrows():
        if name.partition("/")[0] in DEFAULT and paper["map"] > 0:
            assert rows[name]["mAP"] == f"{paper['map']:g}"
    assert rows["2a/256_16"]["off by"] == "+0.3%"
    assert rows["4/jhmdb"]["how"] == "`--only 4/jhmdb_1 4/jhmdb_2 4/jhmdb_3`"
    assert rows["3/woo"]["how"] == "quoted"
    assert {row["row"] for row in rows.values() if row["how"] != "quoted"} <= ROWS.keys() | {"4/jhmdb"}


@pytest.mark.slow
def test_the_page_is_up_to_date():
    assert PAGE.read_text().partition(MARK)[2].strip() == table(), "run python -m tools.reproduction"
