"""What a run computes with: device, arithmetic, time and memory."""
