"""Compile a run's steps ahead of time, for machines that need not be there, and read what they will take."""
