"""Client side of an allocation, in a training job: configuration, backends, session."""
