"""Simulated situations of GPUs at work, written from the physics: what a diagnosis is measured by.

Nothing in here knows the advisor, its signals or its thresholds. A situation's truth is its physical cause; what is
seen of it follows from the cause, through the averaging and the gaps of real exporters.
"""
