"""Reports: plans, or a comparison of plans, as one self-contained HTML page. Needs the extra ``report``."""

from planner.report.build import comparison_report, plan_report
from planner.report.content import Chart, Report, Section, Table
from planner.report.page import check_extra, page

__all__ = ["Chart", "Report", "Section", "Table", "check_extra", "comparison_report", "page", "plan_report"]
