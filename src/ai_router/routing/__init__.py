"""Deciding: from a request to a Decision. No logging, no answering, nothing changed; the classifier is only asked."""
