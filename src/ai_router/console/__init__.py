"""What the console shows: its files, what happens now, and how sure the decisions were. Without Flask."""
