"""Performance and quality regression gates for diffusion inference, as a pytest plugin."""

__version__ = "0.1.0"
