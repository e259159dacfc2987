"""The report: one page from any tree of runs, `python -m reg_sweep.report DIR...`."""

from reg_sweep.report.command import main
from reg_sweep.report.page import Report, ReportError, write_report

__all__ = ["Report", "ReportError", "main", "write_report"]
