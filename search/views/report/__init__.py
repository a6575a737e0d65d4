"""report.html: one self-contained page about a study, made from the study's folder alone."""

from search.views.report.page import write_report

__all__ = ["write_report"]
