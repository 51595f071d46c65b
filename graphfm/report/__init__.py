"""Results for people: a table in the terminal and one self-contained HTML page."""

from graphfm.report.page import write_report
from graphfm.report.table import render_table

__all__ = ["render_table", "write_report"]
