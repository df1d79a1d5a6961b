"""What outlives one evaluation: ledger, outcomes, continuity, and the view that is published."""
