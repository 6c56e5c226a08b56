"""The commands that take no Trainer. They join what the packages may not know of each other: tokenizers, stored
weights, decoders, rewards.
"""
