"""Backtests: replay recorded or generated demand; compare the cost and unserved demand of scaling policies."""
