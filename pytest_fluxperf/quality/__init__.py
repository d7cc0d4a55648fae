"""Pictures: reading what a body returned, validity, and metrics against a reference."""
