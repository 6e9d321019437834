"""One HTML file about a folder of results, a study, or a run: what was found, and how each number was made."""

from dropattack.report.writing import Detail, report_on, sections_on

__all__ = ["Detail", "report_on", "sections_on"]
