"""Curves and landscapes of losses: computed by calling the loss, drawn as SVG and PNG."""
