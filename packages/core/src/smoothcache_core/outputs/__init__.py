"""What a denoiser returns: tensors, structures of them, and the two halves of a guided batch."""
