"""What a machine is, what is installed on it, and how it feels."""
