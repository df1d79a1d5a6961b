"""State between evaluations: the ledger, active recommendations, snoozes, outcomes, and the published view."""
