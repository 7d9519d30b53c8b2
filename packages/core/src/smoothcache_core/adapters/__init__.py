"""What is known about a family of models, as data: where its sites are and how a call is read."""
