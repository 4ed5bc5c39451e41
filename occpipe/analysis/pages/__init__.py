"""HTML pages over rows and photos: report, review and preview. Their scripts and styles lie in `static`.

Start at `page`, then `report`.
"""
