"""The report of a comparison: from its directory to HTML, markdown and CSV."""
