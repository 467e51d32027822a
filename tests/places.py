"""Places in the repository that tests read."""

from pathlib import Path

from u2net_human_plugin.settings import stored_settings
from u2net_human_plugin.weights import bundled

CHECKOUT = Path(__file__).resolve().parents[1]
#: A fine-tuned lite U²-Net, complete, with batch normalisation.
LITE = CHECKOUT / "model_cards" / "checkpoints" / "lite.pth"


def bundled_size() -> int:
    """Side of the square input that the bundled weights fix, in pixels."""
    settings = stored_settings(bundled().path)
    assert settings is not None
    return settings.size
