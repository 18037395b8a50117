"""What all losses are made of: the base classes, their construction by name, their cards."""
