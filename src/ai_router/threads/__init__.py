"""Threads: answers that go on for a while without a reader, so that a page that is loaded anew finds them again."""
