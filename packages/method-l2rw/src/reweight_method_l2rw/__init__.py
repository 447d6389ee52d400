"""Learning to Reweight Examples (Ren et al., ICML 2018) and two baselines of that paper."""
