"""The small package that the chapters import."""
