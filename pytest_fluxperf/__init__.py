"""Performance and quality regression gates for diffusion inference, as a pytest plugin."""
