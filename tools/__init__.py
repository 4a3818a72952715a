"""What a person types around the book: each file is a command, ``python -m tools.check``."""
