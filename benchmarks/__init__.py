"""The benchmark: a laboratory of fake backends with set delays, or servers that run already."""
