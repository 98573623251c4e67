"""Published models: their files and cards, the local registry and the Hugging Face Hub that hold them, and Spaces."""
