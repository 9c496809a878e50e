"""The paper's tables: presets × seeds with equal environment steps, trained in as many sessions as it takes.

`grid` trains what is missing, `rows` keeps the results, `tables` makes means, intervals and tests of the rows.
"""

from himac_lite.evaluation.grid import DEFAULT, GRIDS, Cell, cells, chosen, missing, reproduce, settings_for
from himac_lite.evaluation.rows import Kept, Row, Spent, read_curve, read_rows, row_of_run, rows_of_runs, write_rows
from himac_lite.evaluation.tables import compare, curve_band, spent_to, summary, table_text

__all__ = [
    "GRIDS", "DEFAULT", "Cell", "cells", "chosen", "missing", "reproduce", "settings_for",
    "Row", "Kept", "Spent", "read_rows", "write_rows", "row_of_run", "rows_of_runs", "read_curve",
    "summary", "compare", "curve_band", "spent_to", "table_text",
]  # fmt: skip
