"""Policies that are compared: this library's, and other people's."""
