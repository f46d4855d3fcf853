"""sora_course: build and understand a text-to-video model, step by step. Start with notebooks/00_welcome.ipynb."""

__version__ = "0.1.0"
