"""Triton kernels on tensors, each beside a plain-torch reference: its oracle, and what runs where Triton does not.

Only `light_tts.kernels.suite` chooses between the two. Everything here can be imported without Triton.
"""
