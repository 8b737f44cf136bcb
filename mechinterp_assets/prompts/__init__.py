"""Prompts assembled from segments, with roles and answers, for every task."""
