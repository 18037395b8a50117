"""Infrastructure of the losses: base classes, construction by name, text form, cards, state."""
