"""Options of tools: their names, defaults and checks, for the command line and for Python."""
