"""Comparing losses: from options to variants, a plan of runs, trained runs and results."""
