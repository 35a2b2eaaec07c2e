"""Shadow answers: local answers beside those of a cloud, and which of them a judge prefers."""
