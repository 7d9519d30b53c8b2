"""Shared folders of schedules: several of one model, of which a user takes the one that suits."""
