"""How a model is evaluated at many points: moving it, batches, sums, workers, and points kept as they come."""
