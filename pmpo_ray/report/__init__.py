"""A run as one self-contained HTML file: no network, no other files, no script except its own.

Invariant: every text from a model or a data file is shown as text. It is escaped by the template engine, or
reaches the page as data that the script puts into text nodes only; the page's content policy lets no other
script run.
"""

from pmpo_ray.report.page import render, write_report

__all__ = ["render", "write_report"]
