"""Learning to Reweight Examples (Ren et al., ICML 2018) and three baselines of that paper."""
