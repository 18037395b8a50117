"""The box regression simulations of published papers, for any registered box loss."""
