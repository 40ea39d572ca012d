"""Readers of the official layouts, one file each."""
