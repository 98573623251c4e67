"""What a repo holds, and where it stands: the format, the local registry, the Hugging Face Hub."""
