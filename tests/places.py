"""Places in the repository that tests read."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
#: A fine-tuned lite U²-Net, complete, with batch normalisation.
LITE = CHECKOUT / "model_cards" / "checkpoints" / "lite.pth"
