"""Checkpoints in the repository that tests load."""

from pathlib import Path

#: A fine-tuned lite U²-Net, complete, with batch normalisation.
LITE = Path(__file__).parents[1] / "model_cards" / "checkpoints" / "lite.pth"
