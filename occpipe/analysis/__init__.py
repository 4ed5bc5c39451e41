"""What published rows say: the audit, drift between outputs, agreement of raters, exports, and pages to look at.

It imports all rooms below `pipeline`. Start at `audit`.
"""
