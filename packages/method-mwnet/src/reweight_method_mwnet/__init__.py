"""Meta-Weight-Net (Shu et al., NeurIPS 2019)."""
