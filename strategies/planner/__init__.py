"""Training cost planner: memory, communication, step time, failures, scaling laws and the best layout.

Every number is a formula of the configuration; nothing is allocated. The formulas follow this project's own modules
(which tensors autograd keeps, what FSDP2 gathers, when a schedule lets go of a micro-batch), and tests hold them
against those modules and against what others published.
"""
