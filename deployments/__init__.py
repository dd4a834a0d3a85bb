"""Lifecycle of models, images and services at any MMS."""
