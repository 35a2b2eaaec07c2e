"""The in-process head: a small linear model over hashed n-grams that decides what is plain and abstains on the rest."""
