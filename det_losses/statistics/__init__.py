"""What differs, and how sure one can be: intervals, corrections for many tests, groups."""
