"""From weights to what users get: `export`, and `card`, which writes the documents."""
