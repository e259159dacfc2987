"""Runs on disk: what a record holds, how it is written, found, validated and read."""
