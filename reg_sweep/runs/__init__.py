"""Runs on disk: the contents of records, and how records are written, found, validated and read."""
