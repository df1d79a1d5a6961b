"""Reports on a period: utilization, cost and waste, recommendations and outcomes.

history_reader.py queries the data source, usage.py aggregates, build.py adds the current recommendations; html.py,
the charts and markdown.py render the document.
"""
