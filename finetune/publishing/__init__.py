"""From weights to releases: `calibrate`, `export`, and `card`, which writes the documents."""
