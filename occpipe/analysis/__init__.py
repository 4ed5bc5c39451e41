"""Analysis of published rows: the audit, drift between outputs, agreement of raters, exports, and pages.

It imports all rooms below `pipeline`. Start at `audit`.
"""
