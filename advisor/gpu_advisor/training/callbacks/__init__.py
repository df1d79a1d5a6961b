"""TrainingMonitor as a callback of training libraries: one file per library."""
