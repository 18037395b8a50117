"""Losses and comparisons in other training frameworks."""
