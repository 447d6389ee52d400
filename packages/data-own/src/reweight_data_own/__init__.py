"""A user's own embeddings, tables and Hugging Face datasets."""
