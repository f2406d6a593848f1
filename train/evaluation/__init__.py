"""Scores of finished runs, with intervals, and what differs between two."""
