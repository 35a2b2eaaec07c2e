"""What outlives the process: the database of usage, and the folder of session files as readers see it."""
