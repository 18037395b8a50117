"""Comparing losses: a plan of runs, the runs, their rows, and the report."""
