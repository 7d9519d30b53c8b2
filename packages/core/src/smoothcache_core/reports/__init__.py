"""What policies cost and did to the samples, as values, text, pictures and a folder."""

from smoothcache_core.reports.error_curves import error_curves
from smoothcache_core.reports.folder import write_report
from smoothcache_core.reports.peers import load_peers
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import MetricResult, ReportRow
from smoothcache_core.reports.shared import front_of_report, measured_of
from smoothcache_core.reports.skip_map import skip_map
from smoothcache_core.reports.style import save_figure
from smoothcache_core.reports.text import to_markdown
from smoothcache_core.reports.trade_off import predicted_and_measured, trade_off

__all__ = [
    "MetricResult",
    "Report",
    "ReportRow",
    "error_curves",
    "front_of_report",
    "load_peers",
    "measured_of",
    "predicted_and_measured",
    "save_figure",
    "skip_map",
    "to_markdown",
    "trade_off",
    "write_report",
]
