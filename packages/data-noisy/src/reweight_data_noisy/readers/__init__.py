"""How each dataset is read: `load` returns it as clean images, labels and splits."""
