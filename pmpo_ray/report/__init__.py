"""A run as one HTML file that needs nothing else: no network, no other file, no script but its own.

Invariant: every text that a model or a data file brought is shown as text. It passes the template engine's
escaping, or reaches the page as data that the script puts into text nodes alone; the page's content policy
lets no other script run.
"""

from pmpo_ray.report.page import render, write_report

__all__ = ["render", "write_report"]
