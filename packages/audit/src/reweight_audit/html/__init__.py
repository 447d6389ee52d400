"""The report of an audit: one HTML file to look at, and to decide in what becomes of the suspicious examples."""

from reweight_audit.html.report import write_report
from reweight_audit.html.thumbnails import thumbnails_of

__all__ = ["thumbnails_of", "write_report"]
