"""Damaged and hostile files and plans by the thousand, each made from a number: `python -m tests.fuzz --help`."""
