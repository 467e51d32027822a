"""Fine-tune U²-Net on people: prepare → train → evaluate → export."""
