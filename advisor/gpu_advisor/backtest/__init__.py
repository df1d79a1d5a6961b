"""Replays of recorded or generated demand: what each policy would have cost, and what it would have left unserved."""
