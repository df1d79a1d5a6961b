"""Files that one process owns: an exclusive lock, and SQLite databases."""
