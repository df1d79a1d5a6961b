"""Before a job starts: does it fit, on what, and how is it split? Pure arithmetic over published formulas."""
