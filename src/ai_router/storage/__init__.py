"""What is kept on disk: session files, written and read, and the database of usage. SQLAlchemy is used only here."""
