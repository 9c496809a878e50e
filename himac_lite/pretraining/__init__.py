"""Base models and warm starts from demonstrations; one module of demonstrators per world."""
