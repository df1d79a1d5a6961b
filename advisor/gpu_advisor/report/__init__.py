"""What a stretch of time was like: trends, cost and waste, advice and what became of it.

reading.py asks the data source, usage.py adds up, document.py puts together with what the advisor says now; page.py,
plots.py and markdown.py only show it.
"""
