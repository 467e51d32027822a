"""From pictures to a checkpoint: decoded pictures, batches, losses, the loop."""
