"""Diagnosis: signals -> features -> decision table -> one diagnosis per GPU, reconciled within each job."""
