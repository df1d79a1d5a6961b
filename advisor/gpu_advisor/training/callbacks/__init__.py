"""TrainingMonitor within the loops of others: one file a library."""
