"""Scheduling: each collector runs in its own thread at its own interval and renders its part of one page.

A scrape never waits for a collector. A collector that hangs keeps its thread and becomes overdue: its GPUs are exported
as down with reason `hung`, and all other collectors continue.
"""
