"""Anybody's runs: tables, trackers' files and other programs' folders, read into one list of `ForeignRun`s."""
