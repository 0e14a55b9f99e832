"""Quality figures: how far people agree, how each stands beside the others, what their habits are."""

from storage.quality.agreement import Interval, Metric
from storage.quality.report import COMPARISONS, Person, Question, Report, quality_report
from storage.quality.shares import Share

__all__ = ["COMPARISONS", "Interval", "Metric", "Person", "Question", "Report", "Share", "quality_report"]
