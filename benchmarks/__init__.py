"""The benchmark: simulated models and a load generator, or servers that run already."""
