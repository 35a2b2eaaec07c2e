"""The HTTP edge: the only package that imports Flask. It authenticates, admits, parses, and renders what comes back."""
