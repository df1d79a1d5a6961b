"""What a training job has of an allocation: what it asks for, whom, and how it keeps it."""
