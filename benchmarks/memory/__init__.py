"""A population of image models whose peak memory is simulated: what the prior of `calibration.fit` is learnt from."""
