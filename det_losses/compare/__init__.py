"""Comparing losses: variants, a plan of runs, their training, results and report."""
