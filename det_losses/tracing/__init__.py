"""Formulas of losses, recorded, differentiated and compiled to loops over the rows."""
